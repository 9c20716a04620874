// Where promises wait for native threads: the JS side of the Mailbox in native/addon/env.h.
import { native, onWake } from '../native.js';

/** Something that waits for a completion in its slot. */
export interface Waiter {
  /** Tensors that JS gave for the outputs to be copied into, by position. */
  readonly targets: unknown;
  resolve(result: unknown): void;
  reject(error: unknown): void;
}

const waiters: (Waiter | undefined)[] = [];
const freeSlots: number[] = [];

/** The slot that the next `wait` will take. */
export function nextSlot(): number {
  return freeSlots.length > 0 ? freeSlots[freeSlots.length - 1]! : waiters.length;
}

/** Puts the waiter into the slot that nextSlot() named. */
export function wait(waiter: Waiter): number {
  const slot = freeSlots.pop() ?? waiters.length;
  waiters[slot] = waiter;
  return slot;
}

/** Settles what has completed; the code that ended it: -1 nothing more now, -2 and stop polling. */
function drain(): number {
  for (;;) {
    const slot = native.next();
    if (slot < 0) return slot;
    const waiter = waiters[slot];
    if (!waiter) continue; // its start failed: nobody waits
    waiters[slot] = undefined;
    freeSlots.push(slot);
    let result: unknown;
    try {
      result = native.finish(waiter.targets);
      waiter.resolve(result);
    } catch (error) {
      waiter.reject(error);
    }
  }
}

onWake(drain);

let polling = false;

function poll(): void {
  let more = true; // also when a waiter throws
  try {
    more = drain() === -1;
  } finally {
    if (more) setImmediate(poll);
    else polling = false;
  }
}

/**
 * Looks for completions at every turn of the event loop instead of being woken: the wake of a sleeping
 * thread costs 25 to 60 us, a turn 2. Ends by itself when nothing is expected soon.
 */
export function startPolling(): void {
  if (polling) return;
  polling = true;
  setImmediate(poll);
}

/** Waits for one native task that `start` submits under the slot it is given. */
export function task<T>(
  start: (slot: number) => void,
  make: (result: unknown) => T,
  signal?: AbortSignal,
): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    const slot = nextSlot();
    start(slot);
    const onAbort = (): void => native.cancel(slot);
    signal?.addEventListener('abort', onAbort, { once: true });
    wait({
      targets: undefined,
      resolve(result) {
        signal?.removeEventListener('abort', onAbort);
        try {
          resolve(make(result));
        } catch (error) {
          reject(error);
        }
      },
      reject(error) {
        signal?.removeEventListener('abort', onAbort);
        reject(signal?.aborted ? (signal.reason as Error) : (error as Error));
      },
    });
  });
}
