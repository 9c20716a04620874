// Runs on lanes, for who waits for them: a request's reply, or a promise.
import type { TercelError } from '../errors.js';
import { native } from '../native.js';
import type { Tensor } from '../tensor.js';
import type { Reply, Running } from '../types/servable.js';
import type { Waiter } from './mailbox.js';
import type { Marshaller } from './marshal.js';
import type { Selection } from './selection.js';

/** A request's side of a run on a lane. */
export class PendingRun implements Waiter, Running {
  readonly #marshaller: Marshaller;
  readonly #selection: Selection;
  readonly #reply: Reply;
  /** -1 when it is over: the slot may be another's then. */
  #slot: number;
  #reason: TercelError | undefined;
  readonly targets: unknown;
  /** Keeps SharedArrayBuffers and leases alive that the run uses in place. */
  readonly keep: readonly unknown[];

  constructor(
    marshaller: Marshaller,
    selection: Selection,
    keep: readonly unknown[],
    reply: Reply,
    slot: number,
  ) {
    this.#marshaller = marshaller;
    this.#selection = selection;
    this.#reply = reply;
    this.#slot = slot;
    this.keep = keep;
    this.targets = selection.anyGiven ? givenData(selection, keep) : undefined;
  }

  cancel(reason: TercelError): void {
    if (this.#slot < 0) return;
    this.#reason ??= reason;
    native.cancel(this.#slot);
  }

  resolve(result: unknown): void {
    this.#slot = -1;
    this.#reply.answer(this.#marshaller.decode(result, this.#selection));
  }

  reject(error: unknown): void {
    this.#slot = -1;
    this.#reply.fail(this.#reason ?? error);
  }
}

/** A promise's side of a run on a lane. */
export class PromisedRun implements Waiter {
  readonly #marshaller: Marshaller;
  readonly #selection: Selection;
  readonly #resolve: (value: Record<string, Tensor>) => void;
  readonly #reject: (error: unknown) => void;
  #signal: AbortSignal | undefined;
  #onAbort: (() => void) | undefined;
  readonly targets: unknown;
  readonly keep: readonly unknown[];

  constructor(
    marshaller: Marshaller,
    selection: Selection,
    keep: readonly unknown[],
    resolve: (value: Record<string, Tensor>) => void,
    reject: (error: unknown) => void,
  ) {
    this.#marshaller = marshaller;
    this.#selection = selection;
    this.#resolve = resolve;
    this.#reject = reject;
    this.keep = keep;
    this.targets = selection.anyGiven ? givenData(selection, keep) : undefined;
  }

  listen(signal: AbortSignal, slot: number): void {
    this.#signal = signal;
    this.#onAbort = () => {
      native.cancel(slot);
      this.reject(signal.reason);
    };
    signal.addEventListener('abort', this.#onAbort, { once: true });
  }

  resolve(result: unknown): void {
    const values = this.#marshaller.decode(result, this.#selection);
    this.#end();
    this.#resolve(values);
  }

  reject(error: unknown): void {
    const signal = this.#signal;
    this.#end();
    this.#reject(signal?.aborted ? signal.reason : error);
  }

  #end(): void {
    if (this.#signal) this.#signal.removeEventListener('abort', this.#onAbort!);
  }
}

/**
 * Given tensors' data, the last of a call's arguments, at the positions of their outputs: they are read again
 * when the run is over, float16 as its bits.
 */
function givenData(selection: Selection, args: readonly unknown[]): unknown[] {
  let next = args.length - selection.given.filter(Boolean).length;
  return selection.given.map((tensor) => (tensor ? args[next++] : undefined));
}
