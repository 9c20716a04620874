// One request from its first byte to its last: the only place that finds servables, starts them, ends them when
// the client is gone, and turns the outcome into an answer or an error.
//
//   enter() ─► [the body comes] ─► find() ─► begin() ─► answer(), or fail() ─► settled
//                                                        gone(), abort()
//
// Each transport has one class of exchanges (one hidden class each): it writes what comes out.
import { tallyOf, type Abortable } from '../catalog/tally.js';
import {
  CancelledError,
  InvalidInputError,
  TercelError,
  TimeoutError,
  type ErrorCode,
} from '../errors.js';
import type { Plan } from '../protocol/plan.js';
import type { Call, Inputs, Reply, Running, Servable, Values } from '../types/servable.js';
import { knownError, reportInternal } from './errors.js';
import { findServable } from './find.js';
import type { Front, Hooks } from './front.js';
import type { ExchangeInfo, Kind, Outcome } from './interceptor.js';
import type { Peer } from './peer.js';
import { prepare, rowsOf } from './prepare.js';
import { writeSpans, type Spans } from './regions.js';
import type { Serving } from './serving.js';
import { typedInputs } from './typed-inputs.js';

/** What exchanges of one server have in common. */
export interface ExchangeContext {
  readonly serving: Serving;
  readonly front: Front;
  /** Where clients' shared memory lies; undefined where it is not allowed. */
  readonly spans?: Spans | undefined;
}

export const NO_HEADERS: readonly (string | undefined)[] = [];
export const NO_VALUES: Values = {};
const DEFAULT_PRIORITY = 4;
/** What HTTP and gRPC both carry. */
const headerName = /^(?!.*-bin$)[0-9a-z_.-]+$/i;
const headerValue = /^[\x20-\x7e]*$/;
/** What says how an answer is to be read, or is the connection's. */
const ownHeader =
  /^(connection|content-(length|type|encoding)|date|grpc-.*|http2-settings|inference-header-content-length|keep-alive|proxy-connection|te|trailer|transfer-encoding|upgrade)$/i;
/** Longer timers would end at once. */
const MOST_TIMER_MS = 2 ** 31 - 1;

export abstract class Exchange implements Call, Reply, Abortable, ExchangeInfo {
  readonly kind: Kind;
  readonly context: ExchangeContext;
  readonly peer: Peer;
  /** Values of the headers that interceptors read, in the order of their names there. */
  readonly headers: readonly (string | undefined)[];
  #responseHeaders: string[] | undefined = undefined;
  /** Ends a request of a servable that does not see to its deadline. */
  #timer: NodeJS.Timeout | undefined = undefined;
  /** The model that the request names; '' until it is known. */
  model = '';
  /** A version or a label; undefined: the newest. */
  version: string | undefined = undefined;
  servable: Servable | undefined = undefined;
  id = '';
  plan: Plan | undefined = undefined;
  running: Running | undefined = undefined;
  priority = DEFAULT_PRIORITY;
  deadlineAt = Infinity;
  concurrent = false;
  readonly from: 'client' | 'program' = 'client';
  readonly sharesResults: boolean = true;
  onDrain: (() => void) | undefined = undefined;
  /** Milliseconds by performance.now(), where an interceptor or the servable's statistics want them; else 0. */
  arrivedAt = 0;
  startedAt = 0;
  doneAt = 0;
  writtenAt = 0;
  /** Rows of the first input, of a servable that has rows; else 1. Counted when times are kept. */
  rows = 0;
  /** Of the request's body, and of the answer's. */
  bytesIn = 0;
  bytesOut = 0;
  /** Undefined while it is under way. */
  outcome: Outcome | undefined = undefined;
  error: TercelError | undefined = undefined;
  protected readonly hooks: Hooks;

  constructor(
    context: ExchangeContext,
    kind: Kind,
    peer: Peer,
    headers: readonly (string | undefined)[] = NO_HEADERS,
  ) {
    this.context = context;
    this.kind = kind;
    this.peer = peer;
    this.headers = headers;
    const hooks = context.front.hooks(kind);
    this.hooks = hooks;
    if (hooks.timed) this.arrivedAt = performance.now();
  }

  /** What was asked, for a log: 'POST /v2/models/m/infer', or a method of gRPC. */
  abstract get operation(): string;

  /** Encodes and sends an answer. What it throws becomes the answer. */
  protected abstract write(values: Values): void;

  protected abstract writeError(error: TercelError): void;

  /** A request header that an interceptor named in its `headers`. */
  header(name: string): string | undefined {
    const { headerNames } = this.hooks;
    const at = headerNames.indexOf(name);
    return this.headers[at >= 0 ? at : headerNames.indexOf(name.toLowerCase())];
  }

  /** Adds a header to the answer. Throws InvalidInputError for one that HTTP or gRPC cannot carry. */
  setHeader(name: string, value: string): void {
    if (!headerName.test(name) || !headerValue.test(value)) {
      throw new InvalidInputError(`header ${JSON.stringify(name)} cannot be sent`);
    }
    if (ownHeader.test(name)) throw new InvalidInputError(`header "${name}" is the server's`);
    (this.#responseHeaders ??= []).push(name, value);
  }

  /** What setHeader() was given, name and value in turns. */
  get responseHeaders(): readonly string[] | undefined {
    return this.#responseHeaders;
  }

  get settled(): boolean {
    return this.outcome !== undefined;
  }

  /**
   * Passes what interceptors do at the head of a request. When this is over (at once, where it returns
   * nothing), the exchange goes on unless it is `settled`.
   */
  enter(): Promise<void> | undefined {
    const { enter } = this.hooks;
    if (!enter) return undefined;
    try {
      return enter(this)?.catch((error: unknown) => this.fail(error));
    } catch (error) {
      this.fail(error);
      return undefined;
    }
  }

  /**
   * The servable that the request names.
   *
   * @throws NotFoundError; TercelError UNAVAILABLE while it is loaded or unloaded; ClosedError
   */
  find(model: string, version?: string): Servable {
    this.model = model;
    this.version = version;
    return (this.servable = findServable(this.context.serving, model, version));
  }

  /** Starts the servable by the plan; the exchange is told of the outcome, at once or later. */
  begin(servable: Servable, inputs: Inputs): void {
    if (this.outcome !== undefined) return; // the client left while its body was read
    try {
      this.servable = servable;
      const plan = this.plan!;
      if (plan.preparedFor !== servable) prepare(plan, servable);
      this.priority = plan.priority;
      this.limit(plan.timeoutMs);
      this.#start(servable, plan.prepared, inputs);
    } catch (error) {
      this.fail(error);
    }
  }

  /** The deadline is the least of all that are asked for. */
  protected limit(timeoutMs: number): void {
    if (timeoutMs === 0) return;
    this.deadlineAt = Math.min(this.deadlineAt, performance.now() + timeoutMs);
  }

  #start(servable: Servable, prepared: unknown, inputs: Inputs): void {
    if (servable.accepts !== 'raw') inputs = typedInputs(servable, inputs, this.from);
    const isCounted = servable.stats === undefined;
    if (isCounted || this.hooks.timed) {
      this.rows = rowsOf(servable, inputs);
      this.startedAt = performance.now();
      this.hooks.start?.(this);
      // It may have taken its time over that.
      if (this.outcome !== undefined) return;
    }
    if (!servable.drains) this.#watch(servable);
    const running = servable.start(prepared, inputs, this, this);
    if (running instanceof Promise) {
      // An async start(): what it throws must not end the process.
      running.catch((error: unknown) => this.fail(error));
    } else if (this.outcome === undefined) {
      this.running = running;
    } else if (this.error) {
      running?.cancel(this.error);
    }
  }

  /** Sees to what the servable leaves to the server: an end at the deadline, and to be waited for. */
  #watch(servable: Servable): void {
    tallyOf(servable).begin(this);
    if (this.deadlineAt === Infinity) return;
    const leftMs = this.deadlineAt - performance.now();
    if (leftMs <= 0) throw passed();
    if (leftMs < MOST_TIMER_MS) this.#timer = setTimeout(() => this.abort(passed()), leftMs);
  }

  answer(values: Values = NO_VALUES): void {
    if (this.outcome !== undefined) return;
    try {
      this.place(values);
      this.write(values);
    } catch (error) {
      this.fail(error);
      return;
    }
    this.settle('OK');
  }

  /** Notes that the answer is there, and puts outputs where shared memory was asked for. */
  protected place(values: Values): void {
    if (this.startedAt > 0) this.doneAt = performance.now();
    const { spans } = this.context;
    if (spans && this.plan) writeSpans(this.plan.request, values, spans);
  }

  part(_values: Values): boolean {
    if (this.outcome === undefined) {
      const what = `model "${this.servable!.name}" answers in parts`;
      this.abort(
        new TercelError(
          'UNIMPLEMENTED',
          `${what}, which this protocol cannot carry; ask for a stream`,
        ),
      );
    }
    return false;
  }

  fail(error: unknown): void {
    if (this.outcome !== undefined) return;
    const known = knownError(error);
    if (known.code === 'INTERNAL') reportInternal(this.operation, known);
    this.error = known;
    try {
      this.writeError(known);
    } catch (cause) {
      // Nothing can be told the client; what goes on here must not end the process.
      reportInternal(this.operation, new TercelError('INTERNAL', 'internal error', { cause }));
    }
    this.settle(known.code);
  }

  /** Ends what goes on, and answers with the reason. */
  abort(reason: TercelError): void {
    const { running } = this;
    this.fail(reason);
    running?.cancel(reason);
  }

  /** The client is gone: nothing is written any more. */
  gone(): void {
    if (this.outcome !== undefined) return;
    const reason = new CancelledError('the client went away');
    this.error = reason;
    const { running } = this;
    this.settle('CANCELLED');
    running?.cancel(reason);
  }

  /** Tells a servable that the client has caught up: what its code throws is its request's failure. */
  drained(): void {
    if (this.outcome !== undefined || !this.onDrain) return;
    try {
      this.onDrain();
    } catch (error) {
      this.abort(knownError(error));
    }
  }

  /** The servable has answered: what it does not see to itself is over, though the answer may not be out. */
  protected release(): void {
    if (this.#timer) clearTimeout(this.#timer);
    this.#timer = undefined;
    if (this.servable && !this.servable.drains) tallyOf(this.servable).end(this);
  }

  protected settle(outcome: Outcome): void {
    if (this.outcome !== undefined) return;
    this.outcome = outcome;
    this.running = undefined;
    this.release();
    const { servable } = this;
    if (this.kind !== 'infer') {
      // Only inferences are counted.
    } else if (!servable) {
      if (outcome !== 'OK') countUnmatched(this.context.serving, outcome);
    } else if (outcome !== 'OK' || !servable.stats) {
      this.#count(servable, outcome);
    }
    if (this.hooks.timed) {
      this.writtenAt = performance.now();
      this.hooks.end?.(this);
    }
  }

  #count(servable: Servable, outcome: Outcome): void {
    const tally = tallyOf(servable);
    const us = this.startedAt > 0 ? (performance.now() - this.startedAt) * 1000 : 0;
    if (outcome !== 'OK') tally.failed(outcome, us);
    else if (!servable.stats) tally.answered(this.rows, us);
  }
}

function passed(): TimeoutError {
  return new TimeoutError('the deadline passed');
}

function countUnmatched({ unmatched }: Serving, code: ErrorCode): void {
  unmatched.set(code, (unmatched.get(code) ?? 0) + 1);
}
