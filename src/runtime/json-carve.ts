// JSON with tensors in it: number arrays travel between the text and tensors' memory in native code, and
// only what is around them is JavaScript's.
import { randomBytes } from 'node:crypto';
import { InvalidInputError } from '../errors.js';
import { native } from '../native.js';
import { bytesPerElement, dtypeCodes, viewOf, type DataByDType, type DType } from '../tensor.js';
import { task } from './mailbox.js';
import { allocate, LEASE_FROM_BYTES } from './lease.js';

/**
 * Longer texts of one tensor are read and printed on a thread of their own, where the caller can wait: a
 * thread costs 60 us to start, a quarter of a megabyte 0.8 ms to read (bench/json.ts).
 */
export const LATER_FROM_BYTES = 256 * 1024;

/** Work that goes on elsewhere: what was made is complete when all of it is. */
export type Later = Promise<unknown>[];

/** Stands for an array that was cut out, or is still to be printed. No client can guess it. */
export const MARK = `${randomBytes(12).toString('base64url')}:`;

/** A JSON text whose number arrays were cut out. */
export interface CarvedText {
  /** What is left; texts that differ in their numbers only have the same. */
  readonly envelope: string;
  readonly text: Uint8Array;
  /** Begin and end of each array in the text. */
  readonly spans: readonly number[];
}

/** The same, parsed: what stands in for an array is for carvedArray(). */
export interface CarvedJson extends CarvedText {
  readonly value: unknown;
}

/**
 * The bytes of an array that was cut out. As the data of an input of Model.start() it is read where the
 * run will take it from, by the lane where requests share a batch.
 */
export class ArraySpan {
  readonly text: Uint8Array;
  readonly begin: number;
  readonly end: number;

  constructor(text: Uint8Array, begin: number, end: number) {
    this.text = text;
    this.begin = begin;
    this.end = end;
  }
}

/** Where carveJson() writes: the number of arrays, then begin and end of each. */
let spansOut = new Float64Array(1 + 2 * 4096);
const MAX_ARRAYS = 1 << 20;

/**
 * Where a text has its tensors: under `data` of the objects in `inputs` (the v2 protocol), or in
 * `instances` and `inputs`, where single numbers count too (TensorFlow Serving).
 */
export type JsonForm = 'tensors' | 'rows';

/**
 * Cuts out the number arrays where the form has tensors.
 *
 * @throws InvalidInputError for more arrays than anybody means
 */
export function carve(text: Uint8Array, form: JsonForm = 'tensors'): CarvedText {
  const rows = form === 'rows';
  let envelope = native.carveJson(text, rows, MARK, spansOut);
  const count = spansOut[0]!;
  if (count > MAX_ARRAYS) {
    throw new InvalidInputError(
      `the request has ${count} arrays of data; ${MAX_ARRAYS} are allowed`,
    );
  }
  if (1 + 2 * count > spansOut.length) {
    spansOut = new Float64Array(1 + 2 * count);
    envelope = native.carveJson(text, rows, MARK, spansOut);
  }
  const spans: number[] = [];
  for (let i = 1; i <= 2 * count; i++) spans.push(spansOut[i]!);
  return { envelope, text, spans };
}

/** A place in the envelope, counted in characters, as one in the body, in bytes. */
function inBody(characters: number, envelope: string, spans: readonly number[]): number {
  const at = Buffer.byteLength(envelope.slice(0, characters));
  let shift = 0;
  for (let i = 0; i < spans.length; i += 2) {
    if (spans[i]! - shift >= at) break;
    shift += spans[i + 1]! - spans[i]! - (MARK.length + String(i / 2).length + 2);
  }
  return at + shift;
}

/**
 * Parses what carve() left.
 *
 * @throws InvalidInputError with the position in the text
 */
export function parseEnvelope(carved: CarvedText): CarvedJson {
  const { envelope, text, spans } = carved;
  try {
    return { envelope, text, spans, value: JSON.parse(envelope) as unknown };
  } catch (cause) {
    const message = (cause as Error).message
      // Positions are those of the body, not of what is left of it.
      .replace(/position (\d+)(?: \(line \d+ column \d+\))?/, (_all, at: string) => {
        return `position ${inBody(Number(at), envelope, spans)}`;
      })
      .replaceAll(MARK, '');
    throw new InvalidInputError(`the JSON does not parse: ${message}`, { cause });
  }
}

/** Both. */
export function parseCarved(text: Uint8Array, form?: JsonForm): CarvedJson {
  return parseEnvelope(carve(text, form));
}

/** The index of the array that a value stands for; undefined for any other value. */
export function arrayIndex(value: unknown): number | undefined {
  if (typeof value !== 'string' || !value.startsWith(MARK)) return undefined;
  return Number(value.slice(MARK.length));
}

/** An array by its index. */
export function arrayAt({ text, spans }: CarvedText, index: number): ArraySpan {
  if (!(2 * index < spans.length)) throw new InvalidInputError('no such array');
  return new ArraySpan(text, spans[2 * index]!, spans[2 * index + 1]!);
}

/** The array that a value of the text stands for; undefined for any other value. */
export function carvedArray(json: CarvedJson, value: unknown): ArraySpan | undefined {
  const index = arrayIndex(value);
  return index === undefined ? undefined : arrayAt(json, index);
}

/**
 * Reads an array of numbers, flat or nested, into memory of its own: a lease where that pays.
 *
 * @param count elements that there must be
 * @param tokens whether NaN, Infinity and -Infinity may be there
 * @param datatype what errors call the dtype
 * @param where what the messages of errors begin with
 * @param later takes the work of a long text, and its errors; without it all is done here
 * @throws InvalidInputError with the element and its byte in the text; OverloadError when the arena is full
 */
export function parseNumbers<D extends Exclude<DType, 'string'>>(
  { text, begin, end }: ArraySpan,
  dtype: D,
  count: number,
  tokens: boolean,
  datatype: string,
  where: string,
  later?: Later,
): DataByDType[D] {
  const bytes = count * bytesPerElement(dtype);
  // An element takes a digit and a comma at least: no memory for what cannot be there.
  if (bytes >= LEASE_FROM_BYTES && count > (end - begin) / 2) {
    throw new InvalidInputError(
      `${where}: the shape holds ${count} elements, data has ${end - begin} bytes`,
    );
  }
  const data = (
    bytes >= LEASE_FROM_BYTES
      ? allocate(dtype, [count]).data
      : viewOf(dtype, new ArrayBuffer(bytes))
  ) as DataByDType[D];
  const code = dtypeCodes[dtype];
  if (later && end - begin >= LATER_FROM_BYTES) {
    const parsed = task(
      (slot) => native.parseJsonLater(slot, text, begin, end, code, tokens, data, datatype, where),
      () => [text, data], // which must stay meanwhile
    );
    parsed.catch(ignore); // the caller waits for it, unless another input is wrong
    later.push(parsed);
  } else {
    native.parseJson(text, begin, end, code, tokens, data, datatype, where);
  }
  return data;
}

/**
 * The shape of an array, nested in lists that have one length at each depth.
 *
 * @throws InvalidInputError where they have not
 */
export function shapeOf({ text, begin, end }: ArraySpan, where: string): number[] {
  return native.jsonShape(text, begin, end, where);
}

function ignore(): void {}
