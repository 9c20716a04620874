// What a run may be asked besides its inputs, and how native code is told.
import { InvalidInputError } from '../errors.js';
import { holdFlags } from './inline.js';
import { nextSlot } from './mailbox.js';
import { FLAG_SHARE_RESULTS, META_PRIORITY, META_SLOT, META_TIMEOUT_MS, meta } from './layout.js';
import type { OutputSelection } from '../types/servable.js';

export interface RunSyncOptions {
  /**
   * Which outputs to compute: names, or a tensor (the result is written into its data) or null (a new
   * one is made) for each. Default: all, new.
   */
  outputs?: OutputSelection;
}

export interface RunOptions extends RunSyncOptions {
  /** Takes the run out of the queue, or ends it; the promise rejects with the signal's reason. */
  signal?: AbortSignal;
  /** Deadline from now, in milliseconds, for queue and run together. */
  timeoutMs?: number;
  /** 1 (first) to 8; 4 when not given. */
  priority?: number;
  /**
   * 'shared': results of 16 KiB or more that came from a lane may share the memory that the run wrote,
   * with the results of other requests in its batch: nothing is copied, and they are only to be read.
   * Default 'own'.
   */
  results?: 'own' | 'shared';
  /**
   * More requests are known to be on their way: the run goes to a lane, where they can share a batch,
   * rather than inline. Default false.
   */
  concurrent?: boolean;
}

const DEFAULT_PRIORITY = 4;

/** Reads the priority. The caller's getters run here, before anything is written for native code. */
export function readPriority(options: RunOptions | undefined): number {
  const priority = options?.priority ?? DEFAULT_PRIORITY;
  if (Number.isInteger(priority) && priority >= 1 && priority <= 8) return priority;
  throw new InvalidInputError(`priority: expected 1 to 8, got ${priority}`);
}

/** Reads the timeout; 0 is none. */
export function readTimeout(options: RunOptions | undefined): number {
  const timeoutMs = options?.timeoutMs;
  if (timeoutMs === undefined) return 0;
  if (!(timeoutMs > 0)) {
    throw new InvalidInputError(`timeoutMs: expected more than 0, got ${timeoutMs}`);
  }
  // Three years are none.
  return timeoutMs > 1e11 ? 0 : timeoutMs;
}

/** Reads the flags for native code. */
export function readFlags(options: RunOptions | undefined): number {
  if (!options) return 0;
  const { results, concurrent } = options;
  if (results !== undefined && results !== 'own' && results !== 'shared') {
    throw new InvalidInputError(
      `results: expected 'own' or 'shared', got ${JSON.stringify(results)}`,
    );
  }
  return (results === 'shared' ? FLAG_SHARE_RESULTS : 0) | (concurrent ? holdFlags() : 0);
}

/** Reads the signal. Throws its reason when it is aborted already. */
export function readSignal(options: RunOptions | undefined): AbortSignal | undefined {
  const signal = options?.signal;
  if (!signal) return undefined;
  if (typeof signal.addEventListener !== 'function') {
    throw new InvalidInputError('signal: expected an AbortSignal');
  }
  signal.throwIfAborted();
  return signal;
}

/** Writes what the scheduler wants to know of a request; its slot. */
export function writeRun(priority: number, timeoutMs: number): number {
  const slot = nextSlot();
  meta[META_PRIORITY] = priority;
  meta[META_TIMEOUT_MS] = timeoutMs;
  meta[META_SLOT] = slot;
  return slot;
}
