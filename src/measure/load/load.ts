// What a load is, and what it showed: the same for models in this process and for servers.
import { Histogram } from './histogram.js';

/** How requests come. */
export type Arrivals =
  /** Closed loop: so many at a time, the next when one is answered. */
  | { readonly kind: 'closed'; readonly concurrency: number }
  /** Open loop: so many a second, whatever becomes of them; at equal distances, or as a Poisson process. */
  | { readonly kind: 'constant' | 'poisson'; readonly rate: number };

/** One stretch of load. */
export interface Window {
  readonly arrivals: Arrivals;
  readonly durationMs: number;
  /** How long answers are waited for at the end. */
  readonly drainMs: number;
  /** Of the distances between arrivals, and of nothing else. */
  readonly seed: number;
  readonly signal: AbortSignal;
}

export interface WindowResult {
  /** From when a request was due; in a closed loop, from when it was sent. Of good answers only. */
  readonly latency: Histogram;
  /** Good answers. */
  completed: number;
  /**
   * Of them a second. In a closed loop the sum over the callers, each by its own last answer: what is on its
   * way when the time is over would be lost otherwise. In an open loop those within the duration.
   */
  perSecond: number;
  /** What went wrong, and how often. */
  readonly errors: Record<string, number>;
  /** An answer that was not good, in the server's words. */
  firstError: string;
  /** Due, but never sent; sent, but not answered by the end. */
  unsent: number;
  unanswered: number;
  /** When it began, by the monotonic clock, which process.hrtime() reads too. */
  startMs: number;
  elapsedMs: number;
  /** Processor time: of this process for a model in it; of the load generator for a server. */
  cpuMs: number;
  /** The most that the generator sent a request late by its own fault. */
  lateMs: number;
  /** The server is no longer there. */
  gone: boolean;
}

/** Something that a load can be put on. */
export interface Subject {
  run(window: Window): Promise<WindowResult>;
  close(): Promise<void>;
}

/** For results that are counted in JavaScript. */
export function emptyResult(): WindowResult {
  return {
    latency: new Histogram(),
    completed: 0,
    perSecond: 0,
    errors: {},
    firstError: '',
    unsent: 0,
    unanswered: 0,
    startMs: 0,
    elapsedMs: 0,
    cpuMs: 0,
    lateMs: 0,
    gone: false,
  };
}

/** Adds a stretch of the same load. */
export function addResult(to: WindowResult, result: WindowResult): void {
  to.latency.add(result.latency);
  const elapsedMs = to.elapsedMs + result.elapsedMs;
  if (elapsedMs > 0) {
    const sum = to.perSecond * to.elapsedMs + result.perSecond * result.elapsedMs;
    to.perSecond = sum / elapsedMs;
  }
  for (const key of ['completed', 'unsent', 'unanswered', 'elapsedMs', 'cpuMs'] as const) {
    to[key] += result[key];
  }
  for (const [kind, count] of Object.entries(result.errors)) {
    to.errors[kind] = (to.errors[kind] ?? 0) + count;
  }
  if (to.firstError === '') to.firstError = result.firstError;
  if (to.startMs === 0) to.startMs = result.startMs;
  to.lateMs = Math.max(to.lateMs, result.lateMs);
  to.gone ||= result.gone;
}

/** Random numbers of 0 to 1 that a seed decides (mulberry32). */
export function randomOf(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}
