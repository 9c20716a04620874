// Interceptors: code that every exchange passes, and what they see of it.
//
//   enter   at the head, before the body is read: may refuse, may wait
//   start   when the servable and its inputs are known
//   end     once, with the outcome
import type { ErrorCode, TercelError } from '../errors.js';
import type { Servable } from '../types/servable.js';
import type { Peer } from './peer.js';

export const KINDS = ['infer', 'control', 'describe', 'health'] as const;

/** What a request is for: an inference, a change, a description, or whether the server is well. */
export type Kind = (typeof KINDS)[number];

export type Outcome = 'OK' | ErrorCode;

/** One request, from its first byte to its last. */
export interface ExchangeInfo {
  readonly kind: Kind;
  /** What was asked: 'POST /v2/models/m/infer', or a method of gRPC. */
  readonly operation: string;
  readonly peer: Peer;
  /** The client's name of the request; '' where it has none, or it is not known yet. */
  readonly id: string;
  /** The model that the request names; '' until it is known. */
  readonly model: string;
  /** A version or a label; undefined: the newest. */
  readonly version: string | undefined;
  /** From `start` on, of an inference. */
  readonly servable: Servable | undefined;
  /** 1 (first) to 8. */
  readonly priority: number;
  /** When it must be over, by performance.now(); Infinity: no limit. */
  readonly deadlineAt: number;
  /** Milliseconds by performance.now(); 0 for what has not come yet. */
  readonly arrivedAt: number;
  readonly startedAt: number;
  readonly doneAt: number;
  readonly writtenAt: number;
  /** Rows of the first input, of a servable that has rows; else 1. From `start` on. */
  readonly rows: number;
  /** Of the request's body, and of the answer's. */
  readonly bytesIn: number;
  readonly bytesOut: number;
  /** Undefined while it is under way. */
  readonly outcome: Outcome | undefined;
  readonly error: TercelError | undefined;
  /** A request header that an interceptor named in its `headers`. */
  header(name: string): string | undefined;
  /** Adds a header to the answer. Throws InvalidInputError for one that HTTP or gRPC cannot carry. */
  setHeader(name: string, value: string): void;
}

/** Code that every exchange passes; `engine.use()` takes one. */
export interface Interceptor {
  readonly name: string;
  /** Request headers that it reads, by `exchange.header(name)`: others are not kept. */
  readonly headers?: readonly string[];
  /** Kinds of exchanges that it wants to see. Default: all. */
  readonly kinds?: readonly Kind[];
  /**
   * At the head of a request. Throwing refuses it, as the error says: `new TercelError('DENIED', 'not you')`.
   * A promise makes it wait, for 30 seconds at most.
   */
  enter?(exchange: ExchangeInfo): void | Promise<void>;
  /** Before an inference starts, with the servable, deadline, priority and rows. Throwing refuses it. */
  start?(exchange: ExchangeInfo): void;
  /** When the answer was written, or nobody waits for it any more. What it throws is only logged. */
  end?(exchange: ExchangeInfo): void;
}
