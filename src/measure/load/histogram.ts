// Latencies by how long they took: the layout of native/core/base/histogram.h.

const BITS = 7;
const SUB = 1 << BITS;
/** Buckets of a histogram: 1 ns to 78 minutes. */
export const HISTOGRAM_BUCKETS = 36 << BITS;

/** The percentiles that reports show. */
export const PERCENTILES = [50, 90, 99, 99.9] as const;

function indexOf(ns: number): number {
  if (!(ns >= SUB)) return ns > 0 ? Math.floor(ns) : 0;
  const exponent = ns < 0x80000000 ? 31 - Math.clz32(ns) : Math.floor(Math.log2(ns));
  const shift = exponent - BITS;
  const index = shift * SUB + Math.floor(ns / 2 ** shift);
  return Math.min(index, HISTOGRAM_BUCKETS - 1);
}

/** The middle of a bucket, in nanoseconds. */
function valueOf(index: number): number {
  if (index < SUB) return index;
  const shift = (index >> BITS) - 1;
  return (index - shift * SUB + 0.5) * 2 ** shift;
}

/**
 * Counts by latency. Each power of two nanoseconds is divided into 128 buckets (after HdrHistogram, by Gil
 * Tene), so a percentile is within 0.4 % of what was recorded; the maximum is exact.
 */
export class Histogram {
  /** By bucket; native code counts here too. */
  readonly counts = new Uint32Array(HISTOGRAM_BUCKETS);
  /** The largest that was recorded, in nanoseconds. */
  maxNs = 0;

  record(ns: number): void {
    this.counts[indexOf(ns)]!++;
    if (ns > this.maxNs) this.maxNs = ns;
  }

  add(other: Histogram): void {
    for (let i = 0; i < HISTOGRAM_BUCKETS; i++) this.counts[i]! += other.counts[i]!;
    this.maxNs = Math.max(this.maxNs, other.maxNs);
  }

  get count(): number {
    let sum = 0;
    for (const count of this.counts) sum += count;
    return sum;
  }

  /**
   * The latency that so many percent did not exceed, in nanoseconds; 0 where nothing was recorded.
   *
   * @param percent of 0 to 100
   */
  percentile(percent: number): number {
    const total = this.count;
    const rank = Math.max(1, Math.ceil((percent / 100) * total - 1e-9));
    let seen = 0;
    for (let i = 0; i < HISTOGRAM_BUCKETS; i++) {
      seen += this.counts[i]!;
      if (seen >= rank) return Math.min(valueOf(i), this.maxNs || Infinity);
    }
    return 0;
  }

  /** In nanoseconds. */
  get mean(): number {
    let sum = 0;
    let total = 0;
    this.counts.forEach((count, i) => {
      sum += count * valueOf(i);
      total += count;
    });
    return total ? sum / total : 0;
  }

  /** Bucket and count of those that are not empty, for a file. */
  toJSON(): [number, number][] {
    const pairs: [number, number][] = [];
    this.counts.forEach((count, i) => {
      if (count) pairs.push([i, count]);
    });
    return pairs;
  }

  /** What toJSON() wrote. */
  static from(pairs: readonly (readonly [number, number])[], maxNs: number): Histogram {
    const histogram = new Histogram();
    for (const [index, count] of pairs) histogram.counts[index] = count;
    histogram.maxNs = maxNs;
    return histogram;
  }

  /** Points of the cumulative distribution: milliseconds, and the part that took no longer. */
  distribution(): [number, number][] {
    const total = this.count;
    const points: [number, number][] = [];
    let seen = 0;
    this.counts.forEach((count, i) => {
      if (!count) return;
      seen += count;
      points.push([valueOf(i) / 1e6, seen / total]);
    });
    return points;
  }
}
