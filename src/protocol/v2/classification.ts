// Triton's classification extension: an output's classes with the highest values.
import { InvalidInputError } from '../../errors.js';
import { bytesPerElement, type Tensor } from '../../tensor.js';
import type { Servable, ServableAbout } from '../../types/servable.js';
import { datatypeOf } from './datatypes.js';

/** What the answer wants to know of the model. */
export interface Answering {
  readonly name: string;
  readonly version: string;
  readonly outputs?: Servable['outputs'];
  readonly about?: ServableAbout;
}

/**
 * The classes with the highest values, of each row or of the whole: `value:index` or `value:index:name`.
 *
 * Source: Triton's "Classification Extension".
 */
export function classify(answering: Answering, name: string, tensor: Tensor, most: number): Tensor {
  const { data, dtype, shape } = tensor;
  if (dtype === 'string' || dtype === 'bool' || dtype === 'bfloat16') {
    throw new InvalidInputError(
      `output "${name}" is ${datatypeOf(dtype)}, which has no highest values for a classification`,
    );
  }
  if (dtype === 'float16' && data instanceof Uint16Array) {
    throw new InvalidInputError(`output "${name}": this Node has no FP16 for a classification`);
  }
  const numbers = data as ArrayLike<number | bigint>;
  const declared = answering.outputs?.find((output) => output.name === name)?.shape[0];
  const byRow =
    shape.length > 1 && (typeof declared === 'string' || (answering.about?.maxBatchSize ?? 0) > 0);
  const rows = byRow ? shape[0]! : 1;
  const columns = rows === 0 ? 0 : numbers.length / rows;
  const classes = Math.min(most, columns);
  const names = answering.about?.classNames?.[name];
  const isFloat = bytesPerElement(dtype) > 0 && dtype.startsWith('float');
  const out: string[] = [];
  for (let row = 0; row < rows; row++) {
    const start = row * columns;
    for (const index of highest(numbers, start, columns, classes)) {
      const value = numbers[start + index]!;
      const text = isFloat ? fixed(value as number) : String(value);
      const label = names?.[index];
      out.push(label === undefined ? `${text}:${index}` : `${text}:${index}:${label}`);
    }
  }
  return { dtype: 'string', shape: byRow ? [rows, classes] : [classes], data: out };
}

/** As C's %f has it, which the protocol's examples show. */
function fixed(value: number): string {
  if (!Number.isFinite(value)) return value > 0 ? 'inf' : value < 0 ? '-inf' : 'nan';
  return Math.abs(value) < 1e21 ? value.toFixed(6) : `${BigInt(value)}.000000`;
}

const FEW = 32;

/** Indices of the `most` highest of a row, highest first, the earlier of two that are equal; NaN last. */
function highest(
  values: ArrayLike<number | bigint>,
  start: number,
  count: number,
  most: number,
): number[] {
  const above = (a: number, b: number): boolean => {
    const [x, y] = [values[start + a]!, values[start + b]!];
    return x > y || (y !== y && x === x);
  };
  if (most > FEW) {
    const all = Array.from({ length: count }, (_, i) => i);
    return all.sort((a, b) => (above(a, b) ? -1 : above(b, a) ? 1 : a - b)).slice(0, most);
  }
  // A few of many: insertion into a short list beats sorting the whole.
  const best: number[] = [];
  for (let i = 0; i < count; i++) {
    if (best.length === most && !above(i, best[most - 1]!)) continue;
    let at = best.length === most ? most - 1 : best.length;
    while (at > 0 && above(i, best[at - 1]!)) {
      best[at] = best[at - 1]!;
      at--;
    }
    best[at] = i;
  }
  return best;
}
