// Loads on anything that is called from JavaScript: a model in this process, or a server over gRPC.
import { setImmediate as turn, setTimeout as sleep } from 'node:timers/promises';
import { emptyResult, randomOf, type Subject, type Window, type WindowResult } from './load.js';

/** Timers are late by up to this; what is due sooner is waited for by turns of the event loop. */
const TIMER_MS = 2;
/** An event loop that only runs promises would hear of nothing else. */
const TURN_MS = 20;

const now = (): number => performance.now();

/** What a call failed with, as errors are counted: without what differs from one to the next. */
function kindOf(error: unknown): string {
  const { code, name } = error as { code?: unknown; name?: string };
  return typeof code === 'string' ? code : (name ?? 'error');
}

/** One call at a time for each of `concurrency` callers. */
async function closedLoop(
  call: () => Promise<unknown>,
  concurrency: number,
  window: Window,
  result: WindowResult,
): Promise<void> {
  const { signal } = window;
  const start = now();
  const end = start + window.durationMs;
  let waiting = 0;
  let isOver = false;
  const caller = async (): Promise<void> => {
    let turned = start;
    let failures = 0;
    let answered = 0;
    let last = start;
    for (let before = now(); before < end && !signal.aborted; before = now()) {
      waiting++;
      try {
        await call();
        if (isOver) return;
        last = now();
        result.latency.record((last - before) * 1e6);
        answered++;
        failures = 0;
      } catch (error) {
        if (isOver) return;
        count(result, error);
        if (++failures >= 100) break; // in a row: it will not come back
      } finally {
        waiting--;
      }
      if (before - turned > TURN_MS) {
        turned = before;
        await turn();
      }
    }
    result.completed += answered;
    if (last > start) result.perSecond += (answered * 1000) / (last - start);
  };
  const callers = Promise.all(Array.from({ length: concurrency }, caller));
  // A call that is never answered ends no loop.
  let isDone = false;
  const tired = async (): Promise<void> => {
    const limit = end + window.drainMs;
    while (!isDone && now() < limit && !signal.aborted) await sleep(20);
  };
  await Promise.race([callers.finally(() => (isDone = true)), tired()]);
  result.unanswered = waiting;
  isOver = true;
}

function count(result: WindowResult, error: unknown): void {
  const kind = kindOf(error);
  result.errors[kind] = (result.errors[kind] ?? 0) + 1;
  if (result.firstError === '') result.firstError = (error as Error).message;
}

/** Calls when they are due, whatever becomes of those before. */
async function openLoop(
  call: () => Promise<unknown>,
  rate: number,
  poisson: boolean,
  window: Window,
  result: WindowResult,
): Promise<void> {
  const random = randomOf(window.seed);
  const gapMs = 1000 / rate;
  const start = now();
  const end = start + window.durationMs;
  let inFlight = 0;
  let inTime = 0;
  let due = start;
  const next = (): number => (due += poisson ? -Math.log(1 - random()) * gapMs : gapMs);
  const send = (dueAt: number): void => {
    inFlight++;
    call().then(
      () => {
        const after = now();
        inFlight--;
        result.latency.record((after - dueAt) * 1e6);
        result.completed++;
        if (after < end) inTime++;
      },
      (error: unknown) => {
        inFlight--;
        count(result, error);
      },
    );
  };
  next();
  while (due < end && !window.signal.aborted) {
    const left = due - now();
    if (left <= 0) {
      result.lateMs = Math.max(result.lateMs, -left);
      send(due);
      next();
    } else if (left > TIMER_MS) {
      await sleep(left - TIMER_MS);
    } else {
      await turn();
    }
  }
  const patience = Math.max(now(), end) + window.drainMs;
  while (inFlight > 0 && now() < patience && !window.signal.aborted) {
    await (now() < end + 1 ? turn() : sleep(1));
  }
  result.unanswered = inFlight;
  result.perSecond = (inTime * 1000) / window.durationMs;
}

/** A function as something that a load can be put on. */
export class CallSubject implements Subject {
  readonly #call: () => Promise<unknown>;
  readonly #close: () => Promise<void>;

  constructor(call: () => Promise<unknown>, close: () => Promise<void> = async () => {}) {
    this.#call = call;
    this.#close = close;
  }

  async run(window: Window): Promise<WindowResult> {
    window.signal.throwIfAborted();
    const result = emptyResult();
    const { arrivals } = window;
    result.startMs = Number(process.hrtime.bigint()) / 1e6;
    const cpu = process.cpuUsage();
    const start = now();
    if (arrivals.kind === 'closed') {
      await closedLoop(this.#call, arrivals.concurrency, window, result);
    } else {
      await openLoop(this.#call, arrivals.rate, arrivals.kind === 'poisson', window, result);
    }
    result.elapsedMs = Math.min(now() - start, window.durationMs);
    const { user, system } = process.cpuUsage(cpu);
    result.cpuMs = (user + system) / 1000;
    return result;
  }

  close(): Promise<void> {
    return this.#close();
  }
}
