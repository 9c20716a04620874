// Runs on the calling thread: how much of them one turn of the event loop takes.

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

export function mayRunInline(): boolean {
  return usedUs < BUDGET_US;
}

/** Counts an inline run and resolves with its value, in the next turn when this one is spent. */
export function settleInline<T>(value: T, runUs: number): Promise<T> {
  usedUs += runUs;
  if (!armed) {
    armed = true;
    setImmediate(onTurn);
  }
  if (usedUs < BUDGET_US) return Promise.resolve(value);
  return new Promise((resolve) => setImmediate(resolve, value));
}
