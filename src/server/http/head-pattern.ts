// A head that was read, as a pattern for the next: clients send the same head over and over, but for the values
// of a few headers that differ with each. Comparing costs 0.1 us, and 0.3 for such a value; reading a head 5 to 6.
import type { HeaderSpan } from './request-head.js';

const CARRIAGE_RETURN = 13;
const notPlain = /[^\t\x20-\x7e]/;
/** Longer values are not worth looking for. */
const MAX_VALUE_BYTES = 4096;
/** Values that come in ever other lengths are looked for one by one after so many times. */
const MAX_LAYOUTS = 64;

const END_OF_HEAD = '\r\n\r\n';

type Values = readonly (string | undefined)[];

/** The head as it came last: where values have the lengths that they had, all is where it was. */
interface Layout {
  readonly bytes: number;
  /** What is between the values that differ from request to request. */
  readonly parts: readonly {
    readonly bytes: Buffer;
    readonly begin: number;
    readonly end: number;
  }[];
  readonly varying: readonly HeaderSpan[];
  readonly values: Values;
}

export class HeadPattern {
  /** What is always the same: before, between and after the values. */
  readonly #pieces: readonly Buffer[];
  /** Of the header that each value is of. */
  readonly #indices: readonly number[];
  /** By header, values that are the same in every request of the pattern. */
  readonly #fixed: Values;
  /** By header, whether its value ever differed. */
  readonly #varies: boolean[];
  #layout: Layout;
  #layouts = 0;
  #values: Values;

  /**
   * @param text the head without the empty line after it
   * @param spans of the values, in the order of the text
   * @param count how many headers are read
   */
  constructor(text: string, spans: readonly HeaderSpan[], count: number) {
    const none = (): (string | undefined)[] => new Array<undefined>(count).fill(undefined);
    const open = spans.filter(({ fixed }) => !fixed);
    const pieces: Buffer[] = [];
    let at = 0;
    for (const { begin, end } of open) {
      pieces.push(Buffer.from(text.slice(at, begin), 'latin1'));
      at = end;
    }
    pieces.push(Buffer.from(text.slice(at) + END_OF_HEAD, 'latin1'));
    this.#pieces = pieces;
    this.#indices = open.map(({ index }) => index);
    this.#varies = new Array<boolean>(count).fill(false);
    const fixed = none();
    const values = none();
    for (const span of spans) {
      const value = text.slice(span.begin, span.end).trim();
      values[span.index] = value;
      if (span.fixed) fixed[span.index] = value;
    }
    this.#fixed = fixed;
    this.#values = values;
    this.#layout = this.#laidOut(Buffer.from(text + END_OF_HEAD, 'latin1'), open, values);
  }

  /** Bytes of the head that the chunk begins with; -1 where it is another one. */
  match(chunk: Buffer): number {
    return this.#fits(chunk) ? this.#layout.bytes : this.#search(chunk);
  }

  /** The values of the head that was matched last, by header. */
  values(): Values {
    return this.#values;
  }

  #fits(chunk: Buffer): boolean {
    const { bytes, parts, varying, values } = this.#layout;
    if (bytes > chunk.length) return false;
    for (let i = 0; i < parts.length; i++) {
      const part = parts[i]!;
      if (part.bytes.compare(chunk, part.begin, part.end) !== 0) return false;
    }
    if (varying.length === 0) {
      this.#values = values;
      return true;
    }
    const all = values.slice();
    for (let i = 0; i < varying.length; i++) {
      const { index, begin, end } = varying[i]!;
      const value = valueAt(chunk, begin, end);
      if (value === undefined) return false;
      all[index] = value;
    }
    this.#values = all;
    return true;
  }

  /** Looks for each value by its end. */
  #search(chunk: Buffer): number {
    const pieces = this.#pieces;
    const first = pieces[0]!;
    let at = first.length;
    if (at > chunk.length || first.compare(chunk, 0, at) !== 0) return -1;
    const values = this.#fixed.slice();
    const spans: HeaderSpan[] = [];
    for (let i = 1; i < pieces.length; i++) {
      const begin = at;
      const end = chunk.indexOf(CARRIAGE_RETURN, at);
      if (end < 0 || end - at > MAX_VALUE_BYTES) return -1;
      const value = valueAt(chunk, begin, end);
      if (value === undefined) return -1;
      const piece = pieces[i]!;
      at = end + piece.length;
      if (at > chunk.length || piece.compare(chunk, end, at) !== 0) return -1;
      const index = this.#indices[i - 1]!;
      values[index] = value;
      spans.push({ fixed: false, index, begin, end });
    }
    for (const { index } of spans) {
      if (values[index] !== this.#values[index]) this.#varies[index] = true;
    }
    this.#values = values;
    if (this.#layouts++ < MAX_LAYOUTS) {
      this.#layout = this.#laidOut(chunk.subarray(0, at), spans, values);
    }
    return at;
  }

  #laidOut(head: Buffer, spans: readonly HeaderSpan[], values: Values): Layout {
    const varying = spans.filter(({ index }) => this.#varies[index]);
    const own = Buffer.from(head);
    const parts: Layout['parts'][number][] = [];
    let at = 0;
    for (const { begin, end } of [...varying, { begin: own.length, end: own.length }]) {
      parts.push({ bytes: own.subarray(at, begin), begin: at, end: begin });
      at = end;
    }
    return { bytes: own.length, parts, varying, values };
  }
}

/** A header's value; undefined for bytes that are none: a line may end in them. */
function valueAt(chunk: Buffer, begin: number, end: number): string | undefined {
  // What toString('latin1') does when it has looked at its arguments.
  const value = (chunk as Buffer & LatinSlice).latin1Slice(begin, end);
  if (notPlain.test(value)) return undefined;
  const isTrimmed = value.charCodeAt(0) > 32 && value.charCodeAt(value.length - 1) > 32;
  return isTrimmed ? value : value.trim();
}

interface LatinSlice {
  latin1Slice(begin: number, end: number): string;
}
