// Protocol Buffers' wire format, as far as a tensor's way goes through it: what is read is a view of the
// message, not a copy.
//
// Source: https://protobuf.dev/programming-guides/encoding/
import { InvalidInputError } from './errors.js';

export const VARINT = 0;
export const FIXED64 = 1;
export const LENGTH = 2;
export const FIXED32 = 5;

const TWO_32 = 2 ** 32;
const text = new TextDecoder('utf-8', { fatal: true });

/** Reads the fields of one message, one after the other. Throws InvalidInputError where it is no message. */
export class ProtoReader {
  readonly #bytes: Uint8Array;
  readonly #end: number;
  /** Where the next byte is. */
  at: number;
  /** Of the last tag: the field's number and wire type. */
  field = 0;
  type = 0;
  #low = 0;
  #high = 0;

  constructor(bytes: Uint8Array, at = 0, end = bytes.length) {
    this.#bytes = bytes;
    this.at = at;
    this.#end = end;
  }

  #fail(what: string): never {
    throw new InvalidInputError(`the message is no protocol buffer: ${what} at byte ${this.at}`);
  }

  /** Goes to the next field; false at the end. */
  next(): boolean {
    if (this.at >= this.#end) return false;
    this.#varint();
    if (this.#high !== 0 || this.#low < 8) this.#fail('field number 0');
    this.field = this.#low >>> 3;
    this.type = this.#low & 7;
    return true;
  }

  /** Whether there is more, of a packed field. */
  get more(): boolean {
    return this.at < this.#end;
  }

  #varint(): void {
    const bytes = this.#bytes;
    let low = 0;
    let high = 0;
    for (let shift = 0; shift < 70; shift += 7) {
      if (this.at >= this.#end) this.#fail('the end');
      const byte = bytes[this.at++]!;
      const bits = byte & 127;
      if (shift < 28) low |= bits << shift;
      else if (shift === 28) {
        low |= bits << 28;
        high = bits >>> 4;
      } else if (shift < 63) high |= bits << (shift - 32);
      else high |= (bits & 1) << 31;
      if (byte < 128) {
        this.#low = low >>> 0;
        this.#high = high >>> 0;
        return;
      }
    }
    this.#fail('a number of more than 64 bits');
  }

  #expect(type: number): void {
    if (this.type !== type) this.#fail(`field ${this.field} with wire type ${this.type}`);
  }

  /** A packed or single number of the field: the caller knows which. */
  rawUint32(): number {
    this.#varint();
    return this.#low;
  }

  /** Whether any bit of it is set. */
  rawBool(): boolean {
    this.#varint();
    return (this.#low | this.#high) !== 0;
  }

  rawInt32(): number {
    this.#varint();
    return this.#low | 0;
  }

  rawUint64(): bigint {
    this.#varint();
    return (BigInt(this.#high) << 32n) | BigInt(this.#low);
  }

  rawInt64(): bigint {
    return BigInt.asIntN(64, this.rawUint64());
  }

  /** A signed number; beyond 2^53 it is rounded. */
  int64(): number {
    this.#expect(VARINT);
    return this.rawSafeInt64();
  }

  rawSafeInt64(): number {
    this.#varint();
    return (this.#high | 0) * TWO_32 + this.#low;
  }

  uint64(): number {
    this.#expect(VARINT);
    this.#varint();
    return this.#high * TWO_32 + this.#low;
  }

  bool(): boolean {
    this.#expect(VARINT);
    this.#varint();
    return (this.#low | this.#high) !== 0;
  }

  double(): number {
    this.#expect(FIXED64);
    const span = this.#take(8);
    return new DataView(span.buffer, span.byteOffset, 8).getFloat64(0, true);
  }

  #take(count: number): Uint8Array {
    if (count > this.#end - this.at) this.#fail(`${count} bytes where fewer are left`);
    const span = this.#bytes.subarray(this.at, this.at + count);
    this.at += count;
    return span;
  }

  /** The bytes of a length-delimited field, in place. */
  bytes(): Uint8Array {
    this.#expect(LENGTH);
    this.#varint();
    return this.#take(this.#high * TWO_32 + this.#low);
  }

  /** A reader of the message that the field holds. */
  message(): ProtoReader {
    const span = this.bytes();
    return new ProtoReader(this.#bytes, this.at - span.length, this.at);
  }

  string(): string {
    const span = this.bytes();
    // Names are short and ASCII: a loop beats the decoder.
    if (span.length <= 32) {
      let ascii = '';
      for (let i = 0; i < span.length; i++) {
        const byte = span[i]!;
        if (byte >= 128) return this.#decode(span);
        ascii += String.fromCharCode(byte);
      }
      return ascii;
    }
    return this.#decode(span);
  }

  #decode(span: Uint8Array): string {
    try {
      return text.decode(span);
    } catch {
      return this.#fail('text that is not UTF-8, which ended');
    }
  }

  /** Calls `read` for each number of a repeated field, packed or not. */
  repeated(read: (reader: ProtoReader) => void): void {
    if (this.type !== LENGTH) {
      this.#expect(VARINT);
      read(this);
      return;
    }
    const packed = this.message();
    while (packed.more) read(packed);
  }

  /** Of numbers of a fixed size, the bytes: packed, or one of them. */
  fixed(size: 4 | 8): Uint8Array {
    if (this.type === LENGTH) {
      const span = this.bytes();
      if (span.length % size !== 0) this.#fail(`${span.length} bytes of ${size}-byte numbers`);
      return span;
    }
    this.#expect(size === 4 ? FIXED32 : FIXED64);
    return this.#take(size);
  }

  skip(): void {
    if (this.type === VARINT) this.#varint();
    else if (this.type === FIXED64) this.#take(8);
    else if (this.type === LENGTH) this.bytes();
    else if (this.type === FIXED32) this.#take(4);
    else this.#fail(`wire type ${this.type}`);
  }
}

/** Of one kind in a message: more is nobody's request, and two bytes each would become an object each. */
export const MOST_ENTRIES = 4096;
/** Dimensions of a tensor. */
export const MOST_DIMENSIONS = 64;

/** Throws InvalidInputError for more than the most. */
export function checkCount(count: number, most: number, what: string): void {
  if (count > most) throw new InvalidInputError(`more than ${most} ${what}`);
}

/** Bytes of a number as a varint. */
export function varintBytes(value: number): number {
  let bytes = 1;
  for (let rest = value; rest >= 128; rest = Math.floor(rest / 128)) bytes++;
  return bytes;
}

/** Writes a number of 0 or more, below 2^53. Where the next byte goes. */
export function writeVarint(out: Uint8Array, at: number, value: number): number {
  let rest = value;
  let next = at;
  while (rest >= 128) {
    out[next++] = (rest % 128) | 128;
    rest = Math.floor(rest / 128);
  }
  out[next++] = rest;
  return next;
}

/** Writes a message, field by field; for what is small or seldom. */
export class ProtoWriter {
  readonly #parts: Uint8Array[] = [];
  #bytes = 0;

  #push(part: Uint8Array): this {
    this.#parts.push(part);
    this.#bytes += part.length;
    return this;
  }

  #varint(value: number): this {
    const part = new Uint8Array(varintBytes(value));
    writeVarint(part, 0, value);
    return this.#push(part);
  }

  #tag(field: number, type: number): this {
    return this.#varint(field * 8 + type);
  }

  /** A number of 0 or more. */
  uint(field: number, value: number): this {
    return this.#tag(field, VARINT).#varint(value);
  }

  bool(field: number, value: boolean): this {
    return this.uint(field, value ? 1 : 0);
  }

  string(field: number, value: string): this {
    return this.bytes(field, Buffer.from(value, 'utf8'));
  }

  bytes(field: number, value: Uint8Array): this {
    return this.#tag(field, LENGTH).#varint(value.length).#push(value);
  }

  message(field: number, value: ProtoWriter): this {
    return this.bytes(field, value.finish());
  }

  /** Numbers of 0 or more, packed; none is no field. */
  packed(field: number, values: readonly number[]): this {
    if (values.length === 0) return this;
    const part = new Uint8Array(values.reduce((sum, value) => sum + varintBytes(value), 0));
    let at = 0;
    for (const value of values) at = writeVarint(part, at, value);
    return this.bytes(field, part);
  }

  finish(): Buffer {
    return Buffer.concat(this.#parts, this.#bytes);
  }
}
