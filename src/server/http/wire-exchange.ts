// One infer request on a connection of the wire.
import type { TercelError } from '../../errors.js';
import type { InferPlan } from '../../protocol/v2/plan.js';
import type { RestCodec } from '../../protocol/v2/rest-codec.js';
import { Exchange, type ExchangeContext } from '../../serving/exchange.js';
import type { Peer } from '../../serving/peer.js';
import type { Target } from '../../serving/targets.js';
import type { Values } from '../../types/servable.js';
import { errorAnswer, inferAnswer, type HttpAnswer } from './answer.js';
import { runInfer } from './fast-path.js';
import type { HeadPattern } from './head-pattern.js';
import type { RequestHead } from './request-head.js';

/** A request's head, and the model that it asks. */
export interface RoutedHead {
  readonly head: RequestHead;
  readonly target: Target;
  /** Of the headers that interceptors read. */
  readonly headerNames: readonly string[];
  /** Finds the same head again, whatever the values of the headers that interceptors read. */
  readonly pattern: HeadPattern;
}

/** Where answers are written. */
interface AnswerSink {
  send(answer: HttpAnswer): void;
}

export class WireExchange extends Exchange {
  readonly routed: RoutedHead;
  readonly #connection: AnswerSink;
  readonly #codec: RestCodec;

  constructor(
    connection: AnswerSink,
    host: { context: ExchangeContext; codec: RestCodec },
    routed: RoutedHead,
    peer: Peer,
    headers: readonly (string | undefined)[],
  ) {
    super(host.context, 'infer', peer, headers);
    this.#connection = connection;
    this.#codec = host.codec;
    this.routed = routed;
    this.bytesIn = routed.head.bytes;
  }

  get operation(): string {
    return `POST ${this.routed.head.url}`;
  }

  /** @param binary copied before this returns, unless it lies in a lease */
  run(json: Buffer, binary: Uint8Array): void {
    runInfer(this, this.#codec, this.routed.target, json, binary);
  }

  protected override write(values: Values): void {
    const response = this.#codec.write(this.plan as InferPlan, this.servable!, this.id, values);
    this.#send(inferAnswer(response, this.responseHeaders));
  }

  protected override writeError(error: TercelError): void {
    this.#send(errorAnswer(error, this.responseHeaders));
  }

  #send(answer: HttpAnswer): void {
    this.bytesOut = answer.bytes;
    this.#connection.send(answer);
  }
}
