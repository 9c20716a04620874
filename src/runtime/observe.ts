// What a model does for some seconds, while it serves.
import { setTimeout as sleep } from 'node:timers/promises';
import { performance } from 'node:perf_hooks';
import { InvalidInputError } from '../errors.js';
import { native } from '../native.js';
import type { DeviceStats, ModelStats } from '../types/stats.js';
import type { Model } from './model.js';
import { stats } from './runtime.js';

export interface Observation {
  seconds: number;
  /** Of this model, by all threads of the process. */
  requests: {
    completed: number;
    failed: number;
    refused: number;
    expired: number;
    cancelled: number;
  };
  inferences: number;
  /** Runs of the graph: a batch is one. */
  executions: number;
  /** Microseconds of a completed request on a lane, in the mean: in the queue, in the run. */
  stages: { queueUs: number; runUs: number };
  batches: { rows: number; runs: number; meanRunUs: number }[];
  /**
   * Through Tercel's allocator, of all models of the process: allocations and bytes for each run of a graph,
   * the most bytes alive at once of those made meanwhile, and events that the log had no room for.
   */
  allocations: {
    count: number;
    bytes: number;
    countPerRun: number;
    bytesPerRun: number;
    peakBytes: number;
    dropped: number;
  };
  memory: { rss: number; arenaReserved: number; arenaLeased: number; leases: number };
  /** GPUs, at the end; their counts are from the start of the process. */
  devices: DeviceStats[];
  /** Processors that the process used; the part of the time that the JS thread was busy. */
  cpu: number;
  eventLoop: number;
  /** What watching costs while it lasts; nothing when nobody watches but a branch an allocation. */
  cost: string;
}

/** The log is read on the JS thread: no more than it gets through in some milliseconds. */
const LOG_EVENTS = 1 << 16;

type Counted = Pick<
  ModelStats,
  | 'failed'
  | 'refused'
  | 'expired'
  | 'cancelled'
  | 'rows'
  | 'executions'
  | 'queueUs'
  | 'runUs'
  | 'runs'
>;

/** What an allocation log holds, for so many runs of graphs. */
export function allocationsOf(
  log: { events: Float64Array; dropped: number },
  executions: number,
): Observation['allocations'] {
  const alive = new Map<number, number>();
  let count = 0;
  let bytes = 0;
  let now = 0;
  let peakBytes = 0;
  for (let i = 0; i < log.events.length; i += 3) {
    const address = log.events[i + 1]!;
    const size = log.events[i + 2]!;
    if (size > 0) {
      count++;
      bytes += size;
      now += size;
      alive.set(address, size);
      peakBytes = Math.max(peakBytes, now);
    } else {
      now -= alive.get(address) ?? 0;
      alive.delete(address);
    }
  }
  const runs = Math.max(1, executions);
  return {
    count,
    bytes,
    countPerRun: count / runs,
    bytesPerRun: bytes / runs,
    peakBytes,
    dropped: log.dropped,
  };
}

/**
 * Watches a model; one at a time in a process.
 *
 * @throws InvalidInputError while another is watched; the signal's reason
 */
export async function observe(
  model: Model,
  seconds: number,
  signal?: AbortSignal,
): Promise<Observation> {
  if (!(seconds > 0 && seconds <= 60)) {
    throw new InvalidInputError(`seconds: expected more than 0 and at most 60, got ${seconds}`);
  }
  const before: ModelStats = model.stats();
  const allBefore = new Map(stats().models.map((one) => [one.source, one.executions]));
  native.startAllocationLog(LOG_EVENTS);
  const cpu = process.cpuUsage();
  const loop = performance.eventLoopUtilization();
  const start = performance.now();
  let log: ReturnType<typeof native.stopAllocationLog>;
  try {
    await sleep(seconds * 1000, undefined, { signal });
  } finally {
    log = native.stopAllocationLog();
  }
  const elapsed = (performance.now() - start) / 1000;
  const after = model.stats();
  const { user, system } = process.cpuUsage(cpu);
  const difference = (key: keyof Counted): number => after[key] - before[key];
  const { arena, leases, devices } = stats();
  const onLanes = after.runsOnLanes - before.runsOnLanes || 1;
  const batches = after.batches
    .map(({ rows, runs, runUs }) => {
      const old = before.batches.find((batch) => batch.rows === rows);
      const count = runs - (old?.runs ?? 0);
      return { rows, runs: count, meanRunUs: count ? (runUs - (old?.runUs ?? 0)) / count : 0 };
    })
    .filter(({ runs }) => runs > 0);
  // A model that came or went meanwhile has no difference.
  let executions = 0;
  for (const one of stats().models) {
    executions += Math.max(0, one.executions - (allBefore.get(one.source) ?? one.executions));
  }
  return {
    seconds: elapsed,
    requests: {
      completed: difference('runs') - difference('failed'),
      failed: difference('failed'),
      refused: difference('refused'),
      expired: difference('expired'),
      cancelled: difference('cancelled'),
    },
    inferences: difference('rows'),
    executions: difference('executions'),
    stages: { queueUs: difference('queueUs') / onLanes, runUs: difference('runUs') / onLanes },
    batches,
    allocations: allocationsOf(log!, executions),
    memory: {
      rss: process.memoryUsage.rss(),
      arenaReserved: arena.reservedBytes,
      arenaLeased: arena.leasedBytes,
      leases,
    },
    devices,
    cpu: (user + system) / 1e6 / elapsed,
    eventLoop: performance.eventLoopUtilization(loop).utilization,
    cost: `some 30 ns for each of ${log!.events.length / 3} allocations and frees, and ${LOG_EVENTS * 24} bytes`,
  };
}
