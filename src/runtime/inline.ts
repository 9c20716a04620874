// Runs on the calling thread: how much of them one turn of the event loop takes.

import { native } from '../native.js';
import { FLAG_CONCURRENT, FLAG_HOLD, FLAG_MAY_RUN_INLINE } from './layout.js';

/**
 * Microseconds of inline runs in one turn of the event loop. Past it runs go to a lane, and results
 * wait for the next turn: `for (;;) await model.run(x)` must not starve timers and sockets.
 */
const BUDGET_US = 1000;

let usedUs = 0;
let armed = false;

function onTurn(): void {
  armed = false;
  usedUs = 0;
}

// How many runs the program has under way at once. Inline runs are over when run() returns, so counting
// them says nothing; but a marker queued as a microtask comes up again only after every continuation that
// was already waiting, and each of those may call run(): the calls in between are the concurrency.
let calls = 0;
let markedAt = 0;
let marked = false;
let concurrent = false;

function onMarker(): void {
  marked = false;
  concurrent = calls - markedAt >= CONCURRENT_FROM;
}

/** A few at once are not worth a second processor. */
const CONCURRENT_FROM = 4;
/** A microtask costs 50 ns: one call in 16 pays for it. */
const MARK_EVERY = 16;

/** The flags that tell native code where a run may take place. */
export function runFlags(): number {
  calls++;
  if (!marked && calls - markedAt >= MARK_EVERY) {
    marked = true;
    markedAt = calls;
    queueMicrotask(onMarker);
  }
  return (usedUs < BUDGET_US ? FLAG_MAY_RUN_INLINE : 0) | (concurrent ? FLAG_CONCURRENT : 0);
}

let holding = false;

function flush(): void {
  holding = false;
  native.flush();
}

/**
 * The flags for a run that others come with: lanes are told at the end of this turn of the event loop, or
 * when enough have come.
 */
export function holdFlags(): number {
  if (!holding) {
    holding = true;
    setImmediate(flush);
  }
  return FLAG_CONCURRENT | FLAG_HOLD;
}

/** Counts an inline run. Whether its result may be told now: else in the next turn, this one is spent. */
export function countInline(runUs: number): boolean {
  usedUs += runUs;
  if (!armed) {
    armed = true;
    setImmediate(onTurn);
  }
  return usedUs < BUDGET_US;
}

/** Counts an inline run and resolves with its value, in the next turn when this one is spent. */
export function settleInline<T>(value: T, runUs: number): Promise<T> {
  if (countInline(runUs)) return Promise.resolve(value);
  return new Promise((resolve) => setImmediate(resolve, value));
}
