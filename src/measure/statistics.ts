// Medians, and how sure one may be of a difference.
import { randomOf } from './load/load.js';

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  if (sorted.length === 0) return NaN;
  return sorted.length % 2 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

/** The value below which a part of 0 to 1 of the others lies, between neighbours where it must. */
export function quantile(values: readonly number[], part: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  const at = part * (sorted.length - 1);
  const low = Math.floor(at);
  const high = Math.min(low + 1, sorted.length - 1);
  return sorted[low]! + (sorted[high]! - sorted[low]!) * (at - low);
}

/** The widest of the values around their median, as a part of it. */
export function spread(values: readonly number[]): number {
  const middle = median(values);
  return middle === 0 ? 0 : (Math.max(...values) - Math.min(...values)) / middle;
}

export interface Interval {
  value: number;
  low: number;
  high: number;
}

/** The mean of what is left without a tenth at either end: steadier than a median where values come in two heaps. */
export function trimmedMean(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const cut = Math.floor(sorted.length / 10);
  const kept = sorted.slice(cut, sorted.length - cut);
  return kept.reduce((sum, value) => sum + value, 0) / kept.length;
}

const RESAMPLES = 4000;

/**
 * How many times as large the trimmed mean of `b` is as that of `a`, with a confidence interval by the
 * percentile bootstrap (Efron): both are drawn again, with replacement, 4000 times.
 *
 * @param confidence as 0.99
 */
export function bootstrapRatio(
  a: readonly number[],
  b: readonly number[],
  confidence: number,
  seed = 1,
): Interval {
  const random = randomOf(seed);
  const draw = (values: readonly number[]): number =>
    trimmedMean(values.map(() => values[Math.floor(random() * values.length)]!));
  const ratios: number[] = [];
  for (let i = 0; i < RESAMPLES; i++) ratios.push(draw(b) / draw(a));
  const tail = (1 - confidence) / 2;
  const value = trimmedMean(b) / trimmedMean(a);
  // Few values vary less than what they were drawn from: wider, as T. Hesterberg has it ("What teachers
  // should know about the bootstrap", 2015), by n/(n-1) and by Student's distribution.
  const few = Math.min(a.length, b.length);
  const wider = few > 1 ? Math.sqrt(few / (few - 1)) * (1 + 1.3 / (a.length + b.length - 2)) : 1;
  return {
    value,
    low: value * (quantile(ratios, tail) / value) ** wider,
    high: value * (quantile(ratios, 1 - tail) / value) ** wider,
  };
}
