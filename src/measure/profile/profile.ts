// A profile of one model: where its memory is and where its time goes.
import { mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { loadModel } from '../../catalog/loader.js';
import { task } from '../../runtime/mailbox.js';
import type { Model } from '../../runtime/model.js';
import { startRuntime, trim } from '../../runtime/runtime.js';
import { InvalidInputError } from '../../errors.js';
import { native } from '../../native.js';
import type { Tensor } from '../../tensor.js';
import type { ModelOptions } from '../../types/model-options.js';
import { allocationsOf, type AllocationProfile } from './allocations.js';
import { makeInputs, rowsOf, type InputChoices } from '../load/inputs.js';
import { weightBytes } from '../../onnx/weights.js';
import { describeMachine, type Machine } from '../../platform/machine.js';
import { accountMemory, detailMemory, type MemoryAccount, type MemoryDetail } from './memory.js';
import { modelName } from '../bench/in-process.js';
import { readOperators, type OperatorTime, type TraceEvent } from './operators.js';
import { nowUs, stagesOf, type Stage } from './stages.js';
import { median } from '../statistics.js';

export interface ProfileOptions extends Partial<
  Pick<InputChoices, 'dimensions' | 'shapes' | 'files'>
> {
  /** Threads of one run. Default 1. */
  threads?: number;
  /** Rows of a run. Default 1. */
  batch?: number;
  /** Runs that are measured, behind some that warm up. Default 30. */
  runs?: number;
  /** Loads and unloads, to see what does not come back. Default 5. */
  cycles?: number;
  seed?: number;
  providers?: ModelOptions['providers'];
  signal?: AbortSignal;
  onProgress?: (phase: string) => void;
}

/** Memory at one moment. */
export interface Moment {
  name: 'before' | 'loaded' | 'first run' | 'steady' | 'closed';
  account: MemoryAccount | null;
  detail: MemoryDetail;
}

export interface Profile {
  format: 'tercel-profile';
  version: 1;
  created: string;
  model: string;
  source: string;
  settings: { threads: number; batch: number; runs: number; cycles: number };
  machine: Machine;
  /** What the machine does at best with as many threads: bytes and float32 operations a second. */
  roof: { bytesPerSecond: number; flopsPerSecond: number };
  memory: {
    /** Of the weights as the file declares them. */
    weightsBytes: number;
    moments: Moment[];
    /**
     * Growth of resident memory from before the load to the steady state, and the part with an owner; null where
     * the system does not say.
     */
    growthBytes: number | null;
    explained: number | null;
    allocations: AllocationProfile;
    /** Resident memory after each load and unload, in bytes. */
    cycles: number[];
  };
  time: {
    /** Microseconds of a run without any profile: the median before and behind the profiled ones, in the mean. */
    plainUs: number;
    /**
     * Of a run with the library's profile, in the mean; what its operators took, and what is between, most of
     * which is the profile's own cost.
     */
    runUs: number;
    operatorsUs: number;
    betweenUs: number;
    runs: number;
    operators: OperatorTime[];
    /** Of a request of the v2 protocol with binary tensors on a lane, in its order; empty with strings. */
    stages: Stage[];
    /** The same with a thread more; null where there is no processor for it. */
    oneMore: { threads: number; us: number } | null;
  };
  /** Sentences to act on. */
  advice: string[];
}

const WARM_RUNS = 5;
const LOG_EVENTS = 1 << 20;

function collectGarbage(): void {
  (globalThis as { gc?: () => void }).gc?.();
}

function moment(name: Moment['name']): Moment {
  return { name, account: accountMemory() ?? null, detail: detailMemory() };
}

function timeRuns(model: Model, inputs: Record<string, Tensor>, count: number): number[] {
  const times: number[] = [];
  for (let i = 0; i < count; i++) {
    const start = nowUs();
    model.runSync(inputs);
    times.push(nowUs() - start);
  }
  return times;
}

/**
 * Profiles a model in this process; best in one that does nothing else.
 *
 * @param file of the model
 * @throws (rejects) ModelError, InvalidInputError, RunError; the signal's reason
 */
export async function profile(
  file: string,
  options: ProfileOptions = {},
): Promise<{ profile: Profile; trace: TraceEvent[] }> {
  const { threads = 1, batch = 1, runs = 30, cycles = 5, signal, onProgress = () => {} } = options;
  if (!(runs >= 1) || !(cycles >= 0))
    throw new InvalidInputError('profile: runs of 1 or more, cycles of 0 or more');
  startRuntime();
  const modelOptions: ModelOptions = {
    threads,
    lanes: 1,
    ...(options.providers && { providers: options.providers }),
  };
  const step = (phase: string): void => {
    signal?.throwIfAborted();
    onProgress(phase);
  };

  step('the machine at its best');
  const roof = await task(
    (slot) => native.measureRoof(slot, threads),
    (result) => result as Profile['roof'],
  );

  // One load before all, so that what the library keeps for good is not the model's.
  step('a first load');
  const weightsBytes = weightBytes(file);
  const probe = await loadModel(file, modelOptions);
  let inputs: Record<string, Tensor>;
  try {
    inputs = await makeInputs(probe.inputs, {
      batch,
      dimensions: options.dimensions,
      shapes: options.shapes,
      files: options.files,
      seed: options.seed ?? 1,
    });
    rowsOf(probe.inputs, inputs, batch);
  } finally {
    await probe.close();
  }
  trim();
  collectGarbage();

  step('memory: load and runs');
  native.startAllocationLog(LOG_EVENTS); // which takes memory itself: before the account
  const moments = [moment('before')];
  const marks: number[] = [];
  let log: ReturnType<typeof native.stopAllocationLog>;
  try {
    const model = await loadModel(file, modelOptions);
    marks.push(native.clocks().monotonicNs);
    moments.push(moment('loaded'));
    marks.push(native.clocks().monotonicNs);
    model.runSync(inputs);
    marks.push(native.clocks().monotonicNs);
    moments.push(moment('first run'));
    timeRuns(model, inputs, WARM_RUNS);
    marks.push(native.clocks().monotonicNs);
    timeRuns(model, inputs, runs);
    marks.push(native.clocks().monotonicNs);
    collectGarbage();
    moments.push(moment('steady'));
    await model.close();
    trim();
    collectGarbage();
    moments.push(moment('closed'));
  } finally {
    log = native.stopAllocationLog();
  }

  const afterCycles: number[] = [];
  for (let i = 0; i < cycles; i++) {
    step(`memory: load and unload ${i + 1} of ${cycles}`);
    const again = await loadModel(file, modelOptions);
    again.runSync(inputs);
    await again.close();
    trim();
    collectGarbage();
    afterCycles.push(accountMemory()?.rss ?? process.memoryUsage().rss);
  }

  // Before the profiled runs and behind them: what the machine is slower or faster by meanwhile evens out.
  const plain: number[] = [];
  const timePlain = async (): Promise<void> => {
    const model = await loadModel(file, modelOptions);
    try {
      timeRuns(model, inputs, WARM_RUNS);
      plain.push(median(timeRuns(model, inputs, runs)));
    } finally {
      await model.close();
    }
  };
  step('time: operators');
  await timePlain();
  const folder = mkdtempSync(path.join(tmpdir(), 'tercel-profile-'));
  let operators: ReturnType<typeof readOperators>;
  let operatorLog: ReturnType<typeof native.stopAllocationLog>;
  let startNs: number;
  try {
    const profiled = await loadModel(file, {
      ...modelOptions,
      profilePrefix: path.join(folder, 'ort'),
    });
    native.startAllocationLog(LOG_EVENTS);
    try {
      timeRuns(profiled, inputs, WARM_RUNS + runs);
      operatorLog = native.stopAllocationLog();
      const ended = profiled.endProfile();
      // The library's clock is the real-time one, or where the C++ library has it so the monotonic one.
      const { realMinusMonotonicNs, monotonicNs } = native.clocks();
      const isReal = Math.abs(ended.startNs - monotonicNs) > 1e15;
      startNs = isReal ? ended.startNs - realMinusMonotonicNs : ended.startNs;
      operators = readOperators(ended.file, WARM_RUNS);
    } finally {
      native.stopAllocationLog();
      await profiled.close();
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }

  await timePlain();
  const plainUs = (plain[0]! + plain[1]!) / 2;

  step('time: stages');
  const hasStrings = Object.values(inputs).some(({ dtype }) => dtype === 'string');
  const stages = hasStrings ? [] : await stagesOf(file, modelOptions, inputs);
  let oneMore: Profile['time']['oneMore'] = null;
  if (threads < os.availableParallelism()) {
    step('time: a thread more');
    const wider = await loadModel(file, { ...modelOptions, threads: threads + 1 });
    timeRuns(wider, inputs, WARM_RUNS);
    oneMore = { threads: threads + 1, us: median(timeRuns(wider, inputs, runs)) };
    await wider.close();
  }
  trim();

  const { runUs, operatorsUs, operators: nodes } = operators.profile;
  const growth = (key: keyof MemoryAccount): number =>
    (moments[3]!.account?.[key] ?? 0) - (moments[0]!.account?.[key] ?? 0);
  const growthBytes = growth('rss');
  const made: Profile = {
    format: 'tercel-profile',
    version: 1,
    created: new Date().toISOString(),
    model: modelName(file),
    source: file,
    settings: { threads, batch, runs, cycles },
    machine: describeMachine(),
    roof,
    memory: {
      weightsBytes,
      moments,
      growthBytes: moments[0]!.account ? growthBytes : null,
      explained: !moments[0]!.account
        ? null
        : growthBytes > 0
          ? 1 - Math.abs(growth('unexplained')) / growthBytes
          : 1,
      allocations: allocationsOf(log!, marks, runs, {
        log: operatorLog!,
        startNs,
        profile: operators.profile,
      }),
      cycles: afterCycles,
    },
    time: {
      plainUs,
      runUs,
      operatorsUs,
      betweenUs: runUs - operatorsUs,
      runs: operators.profile.runs,
      operators: nodes,
      stages,
      oneMore,
    },
    advice: [],
  };
  made.advice = adviceOf(made);
  return { profile: made, trace: operators.events };
}

/** Operators of a kind together. */
export function byKind(
  operators: readonly OperatorTime[],
): { operator: string; count: number; us: number; share: number }[] {
  const kinds = new Map<string, { operator: string; count: number; us: number; share: number }>();
  for (const { operator, us, share } of operators) {
    const kind = kinds.get(operator) ?? { operator, count: 0, us: 0, share: 0 };
    kind.count++;
    kind.us += us;
    kind.share += share;
    kinds.set(operator, kind);
  }
  return [...kinds.values()].sort((a, b) => b.us - a.us);
}

/** How near an operator comes to the roof, and which of the two it is under. */
export function roofOf(
  { us, bytes, flops }: OperatorTime,
  { bytesPerSecond, flopsPerSecond }: Profile['roof'],
): { part: number; bound: 'memory' | 'compute' | 'cache' } | undefined {
  if (us <= 0 || (bytes === 0 && !flops)) return undefined;
  const byMemory = (bytes / bytesPerSecond) * 1e6;
  const byCompute = ((flops ?? 0) / flopsPerSecond) * 1e6;
  return byCompute > byMemory
    ? { part: byCompute / us, bound: 'compute' }
    : // What is quicker than memory came from a cache, whose roof is another.
      { part: byMemory / us, bound: byMemory > us ? 'cache' : 'memory' };
}

const percent = (part: number): string => `${(part * 100).toFixed(0)} %`;

function adviceOf({ time, memory, roof, settings }: Profile): string[] {
  const advice: string[] = [];
  const sorted = [...time.operators].sort((a, b) => b.us - a.us);
  const [first] = byKind(time.operators);
  if (first) {
    const few = sorted.filter(({ operator }) => operator === first.operator);
    let share = 0;
    let count = 0;
    while (count < few.length && share < first.share * 0.7) share += few[count++]!.share;
    advice.push(
      `${percent(first.share)} of the run is ${first.count} ${first.operator} node${first.count === 1 ? '' : 's'}` +
        (count < first.count ? `, ${percent(share)} the largest ${count} of them` : ''),
    );
  }
  if (time.oneMore) {
    const gain = time.plainUs / time.oneMore.us;
    advice.push(
      gain > 1.1
        ? `with ${time.oneMore.threads} threads a run is ${gain.toFixed(2)} times as fast; as many lanes side by side give up to ${(time.oneMore.threads / settings.threads).toFixed(2).replace(/\.?0+$/, '')} times the throughput`
        : `a thread more gains nothing (${gain.toFixed(2)}x): use lanes side by side for throughput`,
    );
  }
  const near = sorted
    .slice(0, 5)
    .map((operator) => ({ operator, at: roofOf(operator, roof) }))
    .filter(({ at }) => at && at.bound !== 'cache');
  const slack = near.find(({ at }) => at!.part < 0.3);
  if (slack && slack.operator.share > 0.1) {
    advice.push(
      `${slack.operator.name} (${slack.operator.operator}) reaches ${percent(slack.at!.part)} of the ${slack.at!.bound} roof: another kernel or layout may be faster`,
    );
  } else if (near.length > 0 && near.every(({ at }) => at!.part > 0.6)) {
    advice.push(
      'the largest operators are near the roof of the machine: only a smaller model is faster',
    );
  }
  if (time.operatorsUs / time.plainUs > 1.1) {
    advice.push(
      `the operators are too short for the profile: together they take ${percent(time.operatorsUs / time.plainUs)} of a run without it, and their shares are rough`,
    );
  } else if (time.operatorsUs / time.plainUs < 0.9) {
    advice.push(
      `${percent(1 - time.operatorsUs / time.plainUs)} of a run lies between operators: fewer, larger ones would help`,
    );
  }
  const { perRun, dropped } = memory.allocations;
  if (dropped > 0)
    advice.push(`the log had no room for ${dropped} allocations: fewer --runs show all`);
  advice.push(
    perRun.count === 0
      ? 'a run allocates nothing in the steady state'
      : `a run allocates ${perRun.count.toFixed(1)} times in the steady state, ${(perRun.bytes / 1024).toFixed(0)} KiB`,
  );
  const { cycles } = memory;
  if (cycles.length > 2) {
    const lost = (cycles.at(-1)! - cycles[1]!) / (cycles.length - 2);
    if (lost > 256 * 1024) {
      advice.push(`each load and unload leaves ${(lost / 2 ** 20).toFixed(1)} MiB behind`);
    }
  }
  return advice;
}
