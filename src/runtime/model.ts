import { ClosedError } from '../errors.js';
import type { NativeModel, NativeSample } from '../native.js';
import type { Tensor } from '../tensor.js';
import type { Call, Inputs, OutputSelection, Reply, Running } from '../types/servable.js';
import type { ModelOptions } from '../types/model-options.js';
import type { ModelStats } from '../types/stats.js';
import type { ValueMetadata } from '../types/value.js';
import { Binding, type BindOptions, type BindShapes } from './binding.js';
import { countInline, holdFlags, runFlags, settleInline } from './inline.js';
import { startPolling, task, wait } from './mailbox.js';
import {
  FLAG_MAY_RUN_INLINE,
  FLAG_RAW_BYTES,
  FLAG_SHARE_RESULTS,
  META_FLAGS,
  META_RUN_US,
  meta,
} from './layout.js';
import { Marshaller } from './marshal.js';
import { PendingRun, PromisedRun } from './pending-run.js';
import type { Selection } from './selection.js';
import { nativePolicy } from './scheduling.js';
import {
  readFlags,
  readPriority,
  readSignal,
  readTimeout,
  writeRun,
  type RunOptions,
  type RunSyncOptions,
} from './run-options.js';

/** What Model.warmUp() saw. @internal */
export interface WarmUpResult {
  /** Nanoseconds of the shortest run of each sample. */
  runNs: number[];
  rowsIndependent: boolean;
}

/** A loaded model. Made by loadModel(). */
export class Model {
  readonly #native: NativeModel;
  readonly #runSync: NativeModel['runSync'];
  readonly #run: NativeModel['run'];
  readonly #marshaller: Marshaller;
  /** Declared inputs and outputs, in the model's order. */
  readonly inputs: readonly ValueMetadata[];
  readonly outputs: readonly ValueMetadata[];
  /** What the model file says of itself. */
  readonly metadata: NativeModel['metadata'];
  /** Execution providers in use, in order of preference. */
  readonly providers: readonly string[];
  /** Providers that were passed over because of `fallback`. */
  readonly warnings: readonly string[];
  #closing: Promise<void> | undefined;

  /** @internal */
  constructor(nativeModel: NativeModel) {
    this.#native = nativeModel;
    this.#runSync = nativeModel.runSync;
    this.#run = nativeModel.run;
    this.#marshaller = new Marshaller(nativeModel.inputs, nativeModel.outputs);
    this.inputs = this.#marshaller.inputs;
    this.outputs = this.#marshaller.outputs;
    this.metadata = nativeModel.metadata;
    this.providers = nativeModel.providers;
    this.warnings = nativeModel.warnings;
  }

  /** Whether it runs on a GPU, by CUDA's or TensorRT's provider. */
  get onGpu(): boolean {
    return this.#native.onGpu;
  }

  get closed(): boolean {
    return this.#closing !== undefined;
  }

  /**
   * Runs on the calling thread, which waits. Inputs are used in place; results own their memory.
   *
   * @throws InvalidInputError, RunError, ClosedError
   */
  runSync<T = Record<string, Tensor>>(inputs: Inputs, options?: RunSyncOptions): T {
    const marshaller = this.#marshaller;
    const selection = options?.outputs ? marshaller.select(options.outputs) : marshaller.all;
    marshaller.encode(inputs, selection);
    const result = marshaller.call(this.#runSync);
    return marshaller.decode(result, selection) as T;
  }

  /**
   * Runs without blocking the calling thread: on a native lane, or inline where that was measured to
   * take less than the hop to a lane. Inputs are copied first (those from allocate() and over
   * SharedArrayBuffers are used in place), so the caller may do what it likes with its buffers at once.
   *
   * @throws (rejects) InvalidInputError, RunError, ClosedError; OverloadError when the queue is full;
   *   TimeoutError; the signal's reason
   */
  run<T = Record<string, Tensor>>(inputs: Inputs, options?: RunOptions): Promise<T> {
    try {
      const signal = readSignal(options);
      const marshaller = this.#marshaller;
      const selection = options?.outputs ? marshaller.select(options.outputs) : marshaller.all;
      const priority = readPriority(options);
      const timeoutMs = readTimeout(options);
      const flags = readFlags(options);
      marshaller.encode(inputs, selection);
      const slot = writeRun(priority, timeoutMs);
      meta[META_FLAGS]! |= runFlags() | flags;
      const result = marshaller.call(this.#run);
      if (result !== true) {
        const runUs = meta[META_RUN_US]!;
        return settleInline(marshaller.decode(result, selection) as T, runUs);
      }
      const poll = meta[META_RUN_US] === 1;
      return new Promise<T>((resolve, reject) => {
        const run = new PromisedRun(
          marshaller,
          selection,
          marshaller.data(),
          resolve as (value: Record<string, Tensor>) => void,
          reject,
        );
        wait(run);
        if (poll) startPolling();
        if (signal) run.listen(signal, slot);
      });
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /**
   * As run(), for a servable: selected once, and no promise. From a client, tensors' data may be raw bytes at
   * any address (Uint8Array) and spans of JSON.
   *
   * @internal
   * @returns what goes on; undefined when it is over already, and the reply was told
   * @throws what run() would reject with, when the request is refused
   */
  start(inputs: Inputs, selection: Selection, call: Call, reply: Reply): Running | undefined {
    const marshaller = this.#marshaller;
    marshaller.encode(inputs, selection);
    const { deadlineAt } = call;
    const timeoutMs = deadlineAt === Infinity ? 0 : Math.max(deadlineAt - performance.now(), 0.001);
    const slot = writeRun(call.priority, timeoutMs);
    meta[META_FLAGS]! |=
      (call.from === 'client' ? FLAG_MAY_RUN_INLINE | FLAG_RAW_BYTES : runFlags()) |
      (call.sharesResults ? FLAG_SHARE_RESULTS : 0) |
      (call.concurrent ? holdFlags() : 0);
    const result = marshaller.call(this.#run);
    if (result !== true) {
      const runUs = meta[META_RUN_US]!;
      const values = marshaller.decode(result, selection);
      if (call.from === 'client' || countInline(runUs)) reply.answer(values);
      else setImmediate(() => reply.answer(values));
      return undefined;
    }
    const poll = meta[META_RUN_US] === 1;
    const run = new PendingRun(marshaller, selection, marshaller.data(), reply, slot);
    wait(run);
    if (poll) startPolling();
    return run;
  }

  /** Which outputs start() shall compute, to be kept. Throws InvalidInputError. @internal */
  select(outputs: OutputSelection | undefined): Selection {
    return outputs ? this.#marshaller.selectNew(outputs) : this.#marshaller.all;
  }

  /**
   * Fixes tensors once, to be run many times: the fastest way to run a model.
   *
   * @param shapes shapes by input or output name. An input whose declared shape is fixed needs none. An
   *   output whose shape does not follow from the inputs' named dimensions is found out by a run on
   *   zeros, unless it is given.
   * @param options what stays on the GPU, of a model that runs on one
   * @throws InvalidInputError; OverloadError when the arena is full; ClosedError
   */
  bind(shapes: BindShapes = {}, options: BindOptions = {}): Binding {
    return new Binding(this.#native, this.#marshaller, shapes, options);
  }

  /** Writes ONNX Runtime's profile of a model loaded with profilePrefix. @internal */
  endProfile(): { file: string; startNs: number } {
    return this.#native.endProfile();
  }

  /** Counters of the session, over all JS threads that share it. */
  stats(): ModelStats {
    if (this.closed) throw new ClosedError('the model was closed');
    return this.#native.stats() as ModelStats;
  }

  /**
   * Sets how requests are scheduled, from now on and for every thread that shares the session. Lanes that
   * run already stay.
   *
   * @throws InvalidInputError for a wrong option; ClosedError
   */
  configure(
    options: Pick<ModelOptions, 'threads' | 'lanes' | 'maxQueue' | 'weight' | 'batching' | 'gpu'>,
  ): void {
    if (this.closed) throw new ClosedError('the model was closed');
    this.#native.configure(nativePolicy(options, this.inputs, this.onGpu));
  }

  /**
   * Runs samples on a thread of their own, apart from the lanes.
   *
   * @internal
   * @throws (rejects) RunError or InvalidInputError naming the sample; ClosedError
   */
  warmUp(
    samples: NativeSample[],
    options: { repeat?: number; budgetMs?: number; checkRows?: boolean; throttle?: boolean } = {},
  ): Promise<WarmUpResult> {
    if (this.closed) return Promise.reject(new ClosedError('the model was closed'));
    const { repeat = 1, budgetMs = 1000, checkRows = false, throttle = false } = options;
    return task(
      (slot) => this.#native.warm(slot, samples, { repeat, budgetMs, checkRows, throttle }),
      (result) => result as WarmUpResult,
    );
  }

  /**
   * Closes this handle: runs in flight reject with ClosedError (or with `drain` go on to their end, and
   * nothing new is taken), bindings close, and the session goes when no other thread has it open. Closing
   * twice is the same as once.
   */
  close(options: { drain?: boolean } = {}): Promise<void> {
    const drain = options.drain ?? false;
    if (this.#closing) {
      // What drains may be ended after all.
      if (!drain) this.#native.abandon();
      return this.#closing;
    }
    this.#closing = task(
      (slot) => this.#native.close(slot, drain),
      () => undefined,
    );
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
