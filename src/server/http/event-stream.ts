// Server-sent events as the answer of a route: it begins with the first of them, so that what fails before is an
// answer like any other.
import { PassThrough } from 'node:stream';
import type { FastifyReply } from 'fastify';
import type { TercelError } from '../../errors.js';
import { event } from '../../protocol/v2/generate.js';
import { answerFor } from '../../serving/errors.js';
import type { RoutedExchange } from './routed-exchange.js';
import { EVENTS_TYPE } from './answer.js';

export class EventStream {
  readonly #exchange: RoutedExchange;
  readonly #reply: FastifyReply;
  #stream: PassThrough | undefined;

  constructor(exchange: RoutedExchange, reply: FastifyReply) {
    this.#exchange = exchange;
    this.#reply = reply;
  }

  get begun(): boolean {
    return this.#stream !== undefined;
  }

  /** Sends an event; false when the client reads slower than they come. */
  write(data: Buffer): boolean {
    if (!this.#stream) {
      this.#stream = new PassThrough();
      this.#stream.on('drain', () => this.#exchange.drained());
      this.#stream.on('error', () => {}); // the client is gone, which the exchange hears by itself
      void this.#reply.type(EVENTS_TYPE).send(this.#stream);
    }
    this.#exchange.bytesOut += data.length;
    return this.#stream.write(event(data));
  }

  /** Ends it, after one more event where there is one. */
  end(data: Buffer | undefined): FastifyReply {
    if (!this.#stream) {
      const text = data ? event(data) : '';
      this.#exchange.bytesOut = text.length;
      return this.#reply.type(EVENTS_TYPE).send(text);
    }
    if (data) this.write(data);
    this.#stream.end();
    return this.#reply;
  }

  /** Ends it with the error as its last event, as Triton does. */
  fail(error: TercelError): FastifyReply {
    const { message } = answerFor(error);
    this.#stream!.end(event(Buffer.from(JSON.stringify({ error: message }))));
    return this.#reply;
  }
}
