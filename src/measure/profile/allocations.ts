// The log of allocations, read: what lives how long, what the peak is made of, what a run allocates.
import type { OperatorProfile } from './operators.js';

interface Log {
  events: Float64Array;
  dropped: number;
}

export interface AllocationProfile {
  /** Milliseconds since the load began, and bytes alive then; at most some thousand points. */
  timeline: [number, number][];
  /** When phases ended, in milliseconds. */
  marks: { name: string; ms: number }[];
  /** Allocations by what became of them: the most bytes alive at once, and how many there were. */
  kinds: { kind: Kind; bytes: number; count: number }[];
  peak: { bytes: number; ms: number; madeUpOf: { kind: Kind; bytes: number; count: number }[] };
  /** Of a run in the steady state. */
  perRun: { count: number; bytes: number };
  /** By operator that ran meanwhile, of a run in the steady state; '' is between them. */
  byOperator: { name: string; operator: string; count: number; bytes: number; longestUs: number }[];
  /** Events that the log had no room for. */
  dropped: number;
}

export type Kind =
  /** Made by the load and kept: weights in another layout, and what kernels prepare. */
  | 'kept by the load'
  /** Only while loading. */
  | 'loading'
  /** Made by a run and kept for the next. */
  | 'kept by runs'
  /** From one operator of a run to another, inputs and outputs. */
  | 'of a run';

interface Allocation {
  from: number;
  to: number;
  bytes: number;
}

const MOST_POINTS = 2000;

/** Pairs of allocation and free; what was not freed lives to the end. */
function lives({ events }: Log): Allocation[] {
  const open = new Map<number, Allocation>();
  const all: Allocation[] = [];
  for (let i = 0; i < events.length; i += 3) {
    const [ns, address, bytes] = [events[i]!, events[i + 1]!, events[i + 2]!];
    if (bytes > 0) {
      const allocation = { from: ns, to: Infinity, bytes };
      all.push(allocation);
      open.set(address, allocation);
    } else {
      const allocation = open.get(address);
      if (allocation) allocation.to = ns;
      open.delete(address);
    }
  }
  return all;
}

/** The largest sum alive at once, and when that was. */
function peakOf(allocations: readonly Allocation[]): { bytes: number; ns: number } {
  const steps = allocations.flatMap(({ from, to, bytes }) => [
    [from, bytes] as const,
    ...(to < Infinity ? [[to, -bytes] as const] : []),
  ]);
  steps.sort((a, b) => a[0] - b[0]);
  let alive = 0;
  const peak = { bytes: 0, ns: 0 };
  for (const [ns, bytes] of steps) {
    alive += bytes;
    if (alive > peak.bytes) Object.assign(peak, { bytes: alive, ns });
  }
  return peak;
}

/**
 * @param marks monotonic nanoseconds: the load's end, the first run's begin and end, the warm-up's end, the
 *   measured runs' end
 * @param runs that were measured
 * @param operators the log of profiled runs, and their profile
 */
export function allocationsOf(
  log: Log,
  marks: readonly number[],
  runs: number,
  operators: { log: Log; startNs: number; profile: OperatorProfile },
): AllocationProfile {
  const [loaded, firstRun, , warm, end] = marks as [number, number, number, number, number];
  const all = lives(log);
  const start = all[0]?.from ?? loaded;
  const kindOf = ({ from, to }: Allocation): Kind => {
    if (from < loaded) return to > loaded ? 'kept by the load' : 'loading';
    return to > end ? 'kept by runs' : 'of a run';
  };
  const kinds = new Map<Kind, Allocation[]>();
  for (const allocation of all) {
    if (allocation.from > end) continue; // the unload
    const kind = kindOf(allocation);
    const list = kinds.get(kind);
    if (list) list.push(allocation);
    else kinds.set(kind, [allocation]);
  }
  const peak = peakOf(all);
  const atPeak = all.filter(({ from, to }) => from <= peak.ns && to > peak.ns);
  const madeUpOf = [...kinds.keys()].map((kind) => {
    const those = atPeak.filter((allocation) => kindOf(allocation) === kind);
    return { kind, bytes: those.reduce((sum, { bytes }) => sum + bytes, 0), count: those.length };
  });
  const steady = all.filter(({ from }) => from >= warm && from < end);
  return {
    timeline: timelineOf(all, start),
    marks: [
      { name: 'loaded', ms: (loaded - start) / 1e6 },
      { name: 'first run', ms: (firstRun - start) / 1e6 },
      { name: 'steady', ms: (warm - start) / 1e6 },
      { name: 'unload', ms: (end - start) / 1e6 },
    ],
    kinds: [...kinds].map(([kind, list]) => ({
      kind,
      bytes: peakOf(list).bytes,
      count: list.length,
    })),
    peak: {
      bytes: peak.bytes,
      ms: (peak.ns - start) / 1e6,
      madeUpOf: madeUpOf.filter(({ count }) => count > 0).sort((a, b) => b.bytes - a.bytes),
    },
    perRun: {
      count: steady.length / runs,
      bytes: steady.reduce((sum, { bytes }) => sum + bytes, 0) / runs,
    },
    byOperator: byOperator(operators, runs),
    dropped: log.dropped + operators.log.dropped,
  };
}

/** Bytes alive over time, with the highest of each stretch kept. */
function timelineOf(all: readonly Allocation[], start: number): [number, number][] {
  const steps = all.flatMap(({ from, to, bytes }) => [
    [from, bytes] as const,
    ...(to < Infinity ? [[to, -bytes] as const] : []),
  ]);
  steps.sort((a, b) => a[0] - b[0]);
  const every = Math.max(1, Math.ceil((2 * steps.length) / MOST_POINTS));
  const points: [number, number][] = [[0, 0]];
  let alive = 0;
  let highest: [number, number] = [0, 0];
  steps.forEach(([ns, bytes], i) => {
    alive += bytes;
    const ms = (ns - start) / 1e6;
    if (alive >= highest[1]) highest = [ms, alive];
    if (i % every === every - 1 || i === steps.length - 1) {
      if (highest[0] < ms) points.push(highest);
      points.push([ms, alive]);
      highest = [ms, 0];
    }
  });
  return points;
}

function byOperator(
  { log, startNs, profile }: { log: Log; startNs: number; profile: OperatorProfile },
  runs: number,
): AllocationProfile['byOperator'] {
  const found = new Map<string, AllocationProfile['byOperator'][number]>();
  const { spans, runSpans } = profile;
  const skipped = runSpans.length - profile.runs;
  const from = runSpans[skipped]?.from ?? 0;
  let at = 0;
  for (const allocation of lives(log)) {
    const us = (allocation.from - startNs) / 1000;
    if (us < from) continue;
    while (at < spans.length && spans[at]!.to < us) at++;
    const span = spans[at];
    // The profile's times are whole microseconds.
    const isInside = span !== undefined && us >= span.from - 1;
    const name = isInside ? span.name : '';
    const entry = found.get(name) ?? {
      name,
      operator: isInside ? span.operator : 'between operators',
      count: 0,
      bytes: 0,
      longestUs: 0,
    };
    entry.count += 1 / runs;
    entry.bytes += allocation.bytes / runs;
    if (allocation.to < Infinity) {
      entry.longestUs = Math.max(entry.longestUs, (allocation.to - allocation.from) / 1000);
    }
    found.set(name, entry);
  }
  return [...found.values()].sort((a, b) => b.bytes - a.bytes);
}
