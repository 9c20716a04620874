// Requests of servables as the server counts them: all of those that do not count for themselves, and of all
// the failures that a servable never saw.
import { ClosedError, type ErrorCode, type TercelError } from '../errors.js';
import type { Duration, Servable, ServableStats } from '../types/servable.js';

/** A request under way, which can be ended. */
export interface Abortable {
  abort(reason: TercelError): void;
}

/** Failures that a servable which counts for itself has counted. */
const OWN_FAILURES = new Set<ErrorCode>(['RUN', 'TIMEOUT', 'OVERLOAD', 'CANCELLED', 'CLOSED']);

/** Counts of one servable. */
export class Tally {
  readonly #failures = new Map<ErrorCode, number>();
  /** Requests under way, of a servable that does not drain by itself. */
  readonly #running = new Set<Abortable>();
  readonly #batches = new Map<number, { rows: number; runs: number; runUs: number }>();
  #inferences = 0;
  #lastMs = 0;
  #good = { count: 0, us: 0 };
  #failedUs = 0;
  #onIdle: (() => void)[] = [];

  begin(request: Abortable): void {
    this.#running.add(request);
  }

  /** A request that begin() had is over. */
  end(request: Abortable): void {
    if (!this.#running.delete(request) || this.#running.size > 0) return;
    for (const resolve of this.#onIdle.splice(0)) resolve();
  }

  /** @param us from the start to the answer */
  answered(rows: number, us: number): void {
    this.#inferences += rows;
    this.#good = { count: this.#good.count + 1, us: this.#good.us + us };
    const batch = this.#batches.get(rows) ?? { rows, runs: 0, runUs: 0 };
    batch.runs++;
    batch.runUs += us;
    this.#batches.set(rows, batch);
    this.#lastMs = Date.now();
  }

  failed(code: ErrorCode, us: number): void {
    this.#failures.set(code, (this.#failures.get(code) ?? 0) + 1);
    this.#failedUs += us;
    this.#lastMs = Date.now();
  }

  /** Resolves when nothing is under way. */
  idle(): Promise<void> {
    if (this.#running.size === 0) return Promise.resolve();
    return new Promise((resolve) => this.#onIdle.push(resolve));
  }

  abort(reason: TercelError): void {
    for (const request of [...this.#running]) request.abort(reason);
  }

  /** As a servable would say it. */
  stats(own: ServableStats | undefined): ServableStats {
    const failures = [...this.#failures]
      .filter(([code]) => !own || !OWN_FAILURES.has(code))
      .reduce((sum, [, count]) => sum + count, 0);
    if (own) {
      const fail: Duration = { count: own.fail.count + failures, us: own.fail.us };
      return { ...own, fail, lastMs: Math.max(own.lastMs, this.#lastMs) };
    }
    const { count, us } = this.#good;
    return {
      inferences: this.#inferences,
      executions: count,
      lastMs: this.#lastMs,
      success: { count, us },
      fail: { count: failures, us: this.#failedUs },
      queue: { count, us: 0 },
      infer: { count, us },
      batches: [...this.#batches.values()].sort((a, b) => a.rows - b.rows),
    };
  }
}

const tallies = new WeakMap<Servable, Tally>();

export function tallyOf(servable: Servable): Tally {
  let tally = tallies.get(servable);
  if (!tally) tallies.set(servable, (tally = new Tally()));
  return tally;
}

/** A servable's statistics, whoever counts. */
export function statsOf(servable: Servable): ServableStats {
  return tallyOf(servable).stats(servable.stats?.());
}

/** Servables that wait for the end of their requests before they are closed. */
const closing = new WeakMap<Servable, Promise<void>>();

/**
 * Closes a servable, which begins before this returns; with `drain`, its requests under way end first. Without
 * it they are ended, also those that drain already.
 */
export async function closeServable(servable: Servable, drain: boolean): Promise<void> {
  if (servable.drains) {
    await servable.close?.({ drain });
    return;
  }
  const tally = tallyOf(servable);
  const known = closing.get(servable);
  const closed =
    known ??
    tally
      .idle()
      .then(() => servable.close?.({ drain }))
      .finally(() => closing.delete(servable));
  if (!known) closing.set(servable, closed);
  if (!drain) tally.abort(new ClosedError('the model was closed'));
  await closed;
}
