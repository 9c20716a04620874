// Prints tensors into JSON: numbers go from tensors' memory into the text in native code.
import { native } from '../native.js';
import { dtypeCodes, type Tensor } from '../tensor.js';
import { MARK } from './json-carve.js';
import { task } from './mailbox.js';

/** Tensors of as many elements are printed on a thread of their own, where the caller can wait. */
const LATER_FROM_ELEMENTS = 32 * 1024;

/** A text with places for tensors, to be printed once or many times. */
export interface JsonTemplate {
  /** What is before, between and behind the tensors. */
  readonly pieces: readonly Buffer[];
  readonly bytes: number;
  /** What errors call each tensor. */
  readonly where: readonly string[];
}

/** Makes texts with tensors in them. */
export class JsonPrinter {
  readonly #where: string[] = [];

  /** What to put where the next tensor's numbers shall be, flat. Not for strings. */
  place(where: string): string {
    this.#where.push(where);
    return `${MARK}${this.#where.length - 1}`;
  }

  /** The value, with places for the tensors in the order of the calls of place(). */
  template(value: unknown): JsonTemplate {
    const pieces = JSON.stringify(value)
      .split(`"${MARK}`)
      .map((piece, i) =>
        Buffer.from(i === 0 ? piece : piece.slice(piece.indexOf('"') + 1), 'utf8'),
      );
    const bytes = pieces.reduce((sum, piece) => sum + piece.length, 0);
    return { pieces, bytes, where: this.#where };
  }
}

/**
 * Longer texts are printed where there is room for the longest numbers, and copied to memory of their own
 * length: what is allocated anew has to be cleared by the system first.
 */
const SHORT_BYTES = 64 * 1024;
const MAX_SCRATCH_BYTES = 8 << 20;
let scratch = Buffer.alloc(0);

/** The most bytes that the printed template takes. */
function boundOf(template: JsonTemplate, tensors: readonly Tensor[], nested: boolean): number {
  let bound = template.bytes;
  for (const { dtype, data, shape } of tensors) {
    bound += nested
      ? native.nestedBound(dtypeCodes[dtype], Float64Array.from(shape))
      : native.jsonBound(dtypeCodes[dtype], (data as Float32Array).length);
  }
  return bound;
}

/**
 * Prints the tensors into a template.
 *
 * @param tokens whether NaN and infinities may be printed
 * @param nested in lists, as the shapes say; else flat
 * @throws InvalidInputError for a number that JSON cannot say
 */
export function printJson(
  template: JsonTemplate,
  tensors: readonly Tensor[],
  tokens: boolean,
  nested = false,
): Buffer {
  const { pieces, where } = template;
  if (tensors.length === 0) return pieces[0]!;
  const bound = boundOf(template, tensors, nested);
  const isShort = bound <= SHORT_BYTES;
  const out = isShort
    ? Buffer.allocUnsafe(bound)
    : scratch.length >= bound
      ? scratch
      : Buffer.allocUnsafeSlow(bound);
  if (!isShort && bound <= MAX_SCRATCH_BYTES) scratch = out;
  let at = pieces[0]!.copy(out);
  for (let i = 0; i < tensors.length; i++) {
    const { dtype, data, shape } = tensors[i]!;
    const view = data as Float32Array;
    at = nested
      ? native.printNested(
          dtypeCodes[dtype],
          tokens,
          view,
          Float64Array.from(shape),
          out,
          at,
          where[i]!,
        )
      : native.printJson(dtypeCodes[dtype], tokens, view, out, at, where[i]!);
    at += pieces[i + 1]!.copy(out, at);
  }
  if (isShort) return out.subarray(0, at);
  const text = Buffer.allocUnsafeSlow(at);
  out.copy(text, 0, 0, at);
  return text;
}

/**
 * As printJson(), flat: long tensors on a thread of their own.
 *
 * @throws (rejects) as printJson()
 */
export async function printJsonLater(
  template: JsonTemplate,
  tensors: readonly Tensor[],
  tokens: boolean,
): Promise<Buffer> {
  const isLong = ({ data }: Tensor): boolean =>
    (data as Float32Array).length >= LATER_FROM_ELEMENTS;
  if (!tensors.some(isLong)) return printJson(template, tensors, tokens);
  const { pieces, where } = template;
  const bound = boundOf(template, tensors, false);
  const out = Buffer.allocUnsafeSlow(bound);
  let at = pieces[0]!.copy(out);
  for (let i = 0; i < tensors.length; i++) {
    const { dtype, data } = tensors[i]!;
    const args = [dtypeCodes[dtype], tokens, data as Float32Array, out, at, where[i]!] as const;
    at = isLong(tensors[i]!)
      ? await task(
          (slot) => native.printJsonLater(slot, ...args),
          (end) => (out.length > 0 ? (end as number) : 0), // which must stay meanwhile
        )
      : native.printJson(...args);
    at += pieces[i + 1]!.copy(out, at);
  }
  return out.subarray(0, at);
}
