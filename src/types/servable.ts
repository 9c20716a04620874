// What can be served under a name and a version: a model, a pipeline, a remote model, or a servable around
// another one.
import type { TercelError } from '../errors.js';
import type { Tensor, Value } from '../tensor.js';
import type { ValueMetadata } from './value.js';

/** A declared input or output: `kind` is 'tensor' where it is left out. */
export type TensorInfo = Omit<ValueMetadata, 'kind'> & Partial<Pick<ValueMetadata, 'kind'>>;

/** Inputs by name. Sequences are arrays of tensors; an optional input may be null or left out. */
export type Inputs = Readonly<Record<string, Value>>;

/** Outputs by name. */
export type Values = Readonly<Record<string, Value>>;

/** Which outputs to compute: their names, or a tensor (written in place) or null (made anew) for each. */
export type OutputSelection = readonly string[] | Readonly<Record<string, Tensor | null>>;

/** What a request asks of a servable besides its inputs. */
export interface Call {
  readonly id: string;
  /** 1 (first) to 8. */
  readonly priority: number;
  /** When it must be over, in milliseconds by performance.now(); Infinity: no limit. */
  readonly deadlineAt: number;
  /** Others come with it: it may well wait for them. */
  readonly concurrent: boolean;
  /**
   * Who asks: a program in this process, whose tensors are typed arrays that it goes on owning, or a client,
   * whose tensors are bytes at any address or spans of JSON (for servables that accept 'raw').
   */
  readonly from: 'program' | 'client';
  /** Whether results may lie in memory that others share; they are only read then. */
  readonly sharesResults: boolean;
}

/**
 * Where a servable's answer goes: any number of parts, then one of the other two, once. What comes after that
 * is not heard.
 */
export interface Reply {
  /**
   * A part of an answer that comes in parts. Protocols that carry one answer refuse it, and cancel the request.
   *
   * @returns false when the client reads slower than parts come: `onDrain` is called when it has caught up
   */
  part(values: Values): boolean;
  onDrain: (() => void) | undefined;
  /** The answer, or its last part; nothing, where the parts were all. */
  answer(values?: Values): void;
  fail(error: unknown): void;
}

/** A request that goes on. */
export interface Running {
  /** Ends it; its reply fails with the reason. Any number of times, also when it is over. */
  cancel(reason: TercelError): void;
}

/** What a request that does not say is given. */
export interface RequestDefaults {
  readonly timeoutMs?: number | undefined;
  readonly priority?: number | undefined;
  /** Whether a request may ask for less time. Default true. */
  readonly timeoutOverride?: boolean | undefined;
}

/** What protocols tell of a servable. Everything may be left out. */
export interface ServableAbout {
  /** Triton's name of what runs it. Default 'tercel'. */
  readonly platform?: string;
  readonly backend?: string;
  /** Rows of a request at most; 0: there are no rows. */
  readonly maxBatchSize?: number;
  /** The largest batch that requests share, and how long they wait for one another. */
  readonly batching?: { readonly maxBatch: number; readonly delayUs: number };
  /** Threads, or devices, that run requests at the same time. */
  readonly instances?: { readonly count: number; readonly gpus?: readonly number[] };
  readonly file?: string;
  readonly versions?:
    'all' | { readonly latest: number } | { readonly specific: readonly number[] };
  /** Versions by label. */
  readonly labels?: Readonly<Record<string, number>>;
  /** Names of classes by output. */
  readonly classNames?: Readonly<Record<string, readonly string[]>>;
  readonly defaults?: RequestDefaults;
}

/** So many, and the microseconds that they took together. */
export interface Duration {
  readonly count: number;
  readonly us: number;
}

export interface ServableStats {
  /** Rows of requests that went well, or the requests where there are no rows. */
  readonly inferences: number;
  /** A batch of several requests is one. */
  readonly executions: number;
  /** When the last request ended, in milliseconds since 1970; 0 before the first. */
  readonly lastMs: number;
  readonly success: Duration;
  readonly fail: Duration;
  readonly queue: Duration;
  readonly infer: Duration;
  /** Executions by their rows. */
  readonly batches: readonly {
    readonly rows: number;
    readonly runs: number;
    readonly runUs: number;
  }[];
}

/**
 * Anything that is served under a name and a version; `engine.register()` takes one.
 *
 * @example
 * ```ts
 * const reverse: Servable = {
 *   name: 'reverse',
 *   version: '1',
 *   inputs: [{ name: 'x', dtype: 'float32', shape: ['n'] }],
 *   outputs: [{ name: 'y', dtype: 'float32', shape: ['n'] }],
 *   accepts: 'tensors',
 *   start(_prepared, { x }, _call, reply) {
 *     const { shape, data } = x as Tensor<'float32'>;
 *     reply.answer({ y: { dtype: 'float32', shape, data: data.toReversed() } });
 *     return undefined;
 *   },
 * };
 * ```
 */
export interface Servable {
  readonly name: string;
  /** A positive whole number as text, as in the repository's folder names. */
  readonly version: string;
  readonly inputs: readonly TensorInfo[];
  readonly outputs: readonly TensorInfo[];
  readonly about?: ServableAbout;
  /**
   * 'tensors': inputs are checked against the declared ones and come as typed arrays of the request's own.
   * 'raw': they come as they lie in the request, unchecked: views of bytes, and spans of JSON, in memory that
   * the next request is read into. They are there until start() returns: what is needed later is copied.
   */
  readonly accepts: 'raw' | 'tensors';
  /**
   * It ends requests at their deadline, and close({drain: true}) waits for those under way. Left out, the
   * server does both.
   */
  readonly drains?: boolean;
  /**
   * What start() is given for requests that ask for these outputs (undefined: all), kept for the next that
   * asks the same. Left out: the names, as a set of outputs that exist.
   *
   * @throws InvalidInputError for outputs that there are not
   */
  prepare?(outputs: OutputSelection | undefined): unknown;
  /**
   * Begins a request. The reply may be told before this returns.
   *
   * @param prepared what prepare() gave
   * @returns what goes on; undefined when it is over already, or cannot be ended
   * @throws what the request fails with
   */
  start(prepared: unknown, inputs: Inputs, call: Call, reply: Reply): Running | undefined;
  /** Left out, the server counts. */
  stats?(): ServableStats;
  /** With `drain`, requests under way go on to their end first. */
  close?(options?: { drain?: boolean }): Promise<void>;
}
