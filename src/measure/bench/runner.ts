// Runs the points of a sweep in turns, so that what the machine does meanwhile happens to all of them.
import { readFileSync, writeFileSync } from 'node:fs';
import { ModelError, RunError } from '../../errors.js';
import type { BenchPoint, BenchRound } from './document.js';
import { Histogram } from '../load/histogram.js';
import {
  addResult,
  emptyResult,
  type Arrivals,
  type Subject,
  type WindowResult,
} from '../load/load.js';
import { median } from '../statistics.js';

/** One point of a sweep. */
export interface PointPlan {
  readonly id: string;
  readonly model: string;
  readonly settings: Readonly<Record<string, string | number | boolean>>;
  readonly arrivals: Arrivals;
  /** For a round; the first is 0. */
  open(round: number): Promise<Opened>;
}

export interface Opened {
  readonly subject: Subject;
  /** Inferences of one request. */
  readonly rows: number;
  /** Inferences a second of the bare C loop on the same settings, over so many milliseconds. */
  readonly reference?: ((durationMs: number) => Promise<number>) | undefined;
  /** Whether processor time of this process is that of the model. */
  readonly isInProcess: boolean;
  /** Whether there is nothing else in this process, so that its memory is the model's. */
  readonly isAlone: boolean;
}

export interface RunOptions {
  readonly durationMs: number;
  /** Rounds at least; as many again where they do not agree within `stability`. */
  readonly rounds: number;
  readonly stability: number;
  /** Processes that share the rounds of models in this process. */
  readonly launches: number;
  /** Whether there may be more rounds, where they do not agree. Default true. */
  readonly mayExtend?: boolean;
  /** The longest warm-up of a point. */
  readonly warmUpMs: number;
  readonly seed: number;
  readonly signal: AbortSignal;
  readonly onProgress?: (progress: Progress) => void;
  /** Before each round. */
  readonly onRound?: () => Promise<void>;
}

export interface Progress {
  readonly point: Pick<PointPlan, 'id'>;
  readonly phase: 'warm-up' | 'measure';
  readonly done: number;
  readonly of: number;
  /** Of the last window. */
  readonly round?: BenchRound;
}

export interface RunOutcome {
  readonly points: BenchPoint[];
  readonly partial: boolean;
  /** Why it ended early, where that was not asked for. */
  readonly failure: Error | undefined;
}

/** Windows of a warm-up; so many have to agree within the bound. */
const WARM_WINDOW_MS = 200;
/** An open loop's hold so many requests at least: a median of few says little. */
const WARM_REQUESTS = 200;
const WARM_WINDOWS = 3;
const DRAIN_MS = 10_000;
/** Windows of an open loop are longer where fewer requests would be due. */
const LEAST_REQUESTS = 20;
/** Where the C loop is measured beside it, a window is cut into slices, in turns with the C loop. */
const SLICES = 4;
/** Of a slice. */
const REFERENCE_PART = 0.5;

interface State {
  readonly plan: PointPlan;
  readonly rounds: BenchRound[];
  readonly latency: Histogram;
  peakBytes: number | null;
  warmUpMs: number;
  settled: boolean;
  firstError: string;
}

/** Forgets the process's highest memory, where Linux lets us. */
function resetPeak(): boolean {
  try {
    writeFileSync('/proc/self/clear_refs', '5');
    return true;
  } catch {
    return false;
  }
}

function peakBytes(): number {
  try {
    const status = readFileSync('/proc/self/status', 'utf8');
    return Number(/^VmHWM:\s*(\d+) kB$/m.exec(status)![1]) * 1024;
  } catch {
    return process.resourceUsage().maxRSS * 1024;
  }
}

/** How long a window is: as long as was asked, and for some requests at least. */
function windowMs(arrivals: Arrivals, durationMs: number): number {
  if (arrivals.kind === 'closed') return durationMs;
  return Math.max(durationMs, (LEAST_REQUESTS / arrivals.rate) * 1000);
}

/** Whether the last `count` values lie within the bound of their median. */
function agree(values: readonly number[], count: number, bound: number): boolean {
  if (values.length < count) return false;
  const last = values.slice(-count);
  const middle = median(last);
  return last.every((value) => Math.abs(value - middle) <= bound * middle);
}

function roundOf(
  result: WindowResult,
  plan: PointPlan,
  opened: Opened,
  startedMs: number,
  reference: number | null,
): BenchRound {
  const { latency } = result;
  const us = (percent: number): number => latency.percentile(percent) / 1000;
  const { isInProcess } = opened;
  const inferences = result.completed * opened.rows;
  // The generator of an open loop looks at the clock until a request is due: that is not the model's.
  const hasCpu = isInProcess && plan.arrivals.kind === 'closed';
  return {
    startedMs,
    durationMs: result.elapsedMs,
    completed: result.completed,
    throughput: result.perSecond * opened.rows,
    p50Us: us(50),
    p90Us: us(90),
    p99Us: us(99),
    p999Us: us(99.9),
    maxUs: latency.maxNs / 1000,
    meanUs: latency.mean / 1000,
    cpuUsPerInference: hasCpu && inferences > 0 ? (result.cpuMs * 1000) / inferences : null,
    generatorCpu: isInProcess ? null : result.cpuMs / Math.max(1, result.elapsedMs),
    lateMs: result.lateMs,
    errors: result.errors,
    unsent: result.unsent,
    unanswered: result.unanswered,
    reference,
  };
}

function pointOf(state: State, stability: number): BenchPoint {
  const { plan, rounds, latency } = state;
  return {
    id: plan.id,
    model: plan.model,
    settings: { ...plan.settings },
    rounds,
    latency: latency.toJSON(),
    maxNs: latency.maxNs,
    peakMemoryBytes: state.peakBytes,
    warmUpMs: state.warmUpMs,
    settled: state.settled,
    stable: rounds.length > 1 && isSteady(state, stability),
    firstError: state.firstError,
  };
}

/**
 * Measures the points: each is warmed up until its windows agree, then all take turns, forth and back, for
 * some rounds, and for as many more where they do not agree.
 *
 * What goes wrong ends the run and is told in `failure`, with the points measured so far; only where
 * nothing was measured is it thrown.
 *
 * @throws ModelError, RunError, InvalidInputError
 */
export async function runPoints(
  plans: readonly PointPlan[],
  options: RunOptions,
): Promise<RunOutcome> {
  const { signal, durationMs, rounds, stability, onProgress } = options;
  const began = performance.now();
  const states: State[] = plans.map((plan) => ({
    plan,
    rounds: [],
    latency: new Histogram(),
    peakBytes: null,
    warmUpMs: 0,
    settled: false,
    firstError: '',
  }));
  let seed = options.seed;
  const window = async (state: State, opened: Opened, ms: number): Promise<WindowResult> => {
    const result = await opened.subject.run({
      arrivals: state.plan.arrivals,
      durationMs: ms,
      drainMs: DRAIN_MS,
      seed: seed++,
      signal,
    });
    if (state.firstError === '') state.firstError = result.firstError;
    if (result.gone) throw new ModelError('the server is gone: nobody listens there any more');
    if (result.completed === 0 && !signal.aborted && result.unanswered + result.unsent > 0) {
      throw new RunError(
        `${state.plan.id}: no request was answered within ${(ms + DRAIN_MS) / 1000} s`,
      );
    }
    if (result.completed === 0 && Object.keys(result.errors).length > 0) {
      const [kind, count] = Object.entries(result.errors)[0]!;
      throw new RunError(
        `${state.plan.id}: every request failed (${kind}, ${count} times)` +
          (state.firstError ? `: ${state.firstError}` : ''),
      );
    }
    return result;
  };

  let failure: Error | undefined;
  let done = 0;
  const most = (options.mayExtend ?? true) ? 2 * rounds : rounds;
  try {
    for (let i = 0; i < most && !signal.aborted; i++) {
      const isLast = i >= rounds && states.every((state) => isSteady(state, stability));
      if (isLast) break;
      await options.onRound?.();
      const inTurn = i % 2 === 0 ? states : [...states].reverse();
      for (const state of inTurn) {
        if (signal.aborted) break;
        const opened = await state.plan.open(i);
        const { reference, isInProcess } = opened;
        if (i === 0) {
          onProgress?.({ point: state.plan, phase: 'warm-up', done, of: states.length * rounds });
          await warmUp(state, (ms) => window(state, opened, ms), options);
        } else if (isInProcess) {
          // Loaded anew: the first runs are not what is measured.
          await window(state, opened, Math.min(WARM_WINDOW_MS / 2, durationMs));
        }
        const startedMs = performance.now() - began;
        const seesPeak = opened.isAlone && resetPeak();
        // An open loop's backlog goes from one slice to the next: it has one.
        const isSliced = reference !== undefined && state.plan.arrivals.kind === 'closed';
        const slices = isSliced ? SLICES : 1;
        const result = emptyResult();
        const rates: number[] = [];
        for (let slice = 0; slice < slices && !signal.aborted; slice++) {
          const sliceMs = windowMs(state.plan.arrivals, durationMs) / slices;
          if (reference) rates.push(await reference(sliceMs * REFERENCE_PART));
          addResult(result, await window(state, opened, sliceMs));
        }
        if (seesPeak) state.peakBytes = Math.max(state.peakBytes ?? 0, peakBytes());
        // What was cut short says little.
        if (signal.aborted && result.elapsedMs < durationMs / 2) break;
        const compared = rates.length > 0 ? rates.reduce((x, y) => x + y) / rates.length : null;
        const round = roundOf(result, state.plan, opened, startedMs, compared);
        state.rounds.push(round);
        state.latency.add(result.latency);
        onProgress?.({
          point: state.plan,
          phase: 'measure',
          done: ++done,
          of: states.length * rounds,
          round,
        });
      }
    }
  } catch (error) {
    if (!signal.aborted) failure = error as Error;
  }
  const measured = states.filter((state) => state.rounds.length > 0);
  if (failure && measured.length === 0) throw failure;
  return {
    points: measured.map((state) => pointOf(state, stability)),
    partial: signal.aborted || failure !== undefined,
    failure,
  };
}

/** The last rounds agree: in throughput, or in an open loop, which is given that, in their medians. */
export function areSteady(
  rounds: readonly BenchRound[],
  isOpen: boolean,
  stability: number,
): boolean {
  return agree(
    rounds.map(({ throughput, p50Us }) => (isOpen ? p50Us : throughput)),
    Math.min(3, rounds.length),
    stability,
  );
}

function isSteady({ rounds, plan }: State, stability: number): boolean {
  return areSteady(rounds, plan.arrivals.kind !== 'closed', stability);
}

async function warmUp(
  state: State,
  window: (ms: number) => Promise<WindowResult>,
  { warmUpMs, durationMs, stability, signal }: RunOptions,
): Promise<void> {
  const start = performance.now();
  const figures: number[] = [];
  const { arrivals } = state.plan;
  const isOpen = arrivals.kind !== 'closed';
  const enoughMs = isOpen ? (WARM_REQUESTS / arrivals.rate) * 1000 : 0;
  const ms = Math.min(Math.max(WARM_WINDOW_MS, enoughMs), windowMs(arrivals, durationMs));
  while (!signal.aborted && performance.now() - start < warmUpMs) {
    const { perSecond, latency } = await window(ms);
    figures.push(isOpen ? latency.percentile(50) : perSecond);
    if (agree(figures, WARM_WINDOWS, stability)) {
      state.settled = true;
      break;
    }
  }
  state.warmUpMs = performance.now() - start;
}
