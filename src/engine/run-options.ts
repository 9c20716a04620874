// What a run may be asked besides its inputs, and how native code is told.
import { InvalidInputError } from '../errors.js';
import { nextSlot } from './mailbox.js';
import {
  META_PRIORITY,
  META_SLOT,
  META_TIMEOUT_MS,
  meta,
  type OutputSelection,
} from './marshal.js';

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
