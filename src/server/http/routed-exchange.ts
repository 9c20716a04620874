// Exchanges of Fastify's routes: one for each request, made at its head.
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { AwaitedExchange } from '../../serving/awaited-exchange.js';
import type { ExchangeContext } from '../../serving/exchange.js';
import type { Kind } from '../../serving/interceptor.js';
import type { Values } from '../../types/servable.js';
import { headersOf, type HttpAnswer } from './answer.js';
import { headerValues } from '../header-values.js';
import { SocketPeer } from './socket-peer.js';

declare module 'fastify' {
  interface FastifyRequest {
    /** Null before the route is known. */
    exchange: RoutedExchange | null;
  }
  interface FastifyContextConfig {
    /** What requests of the route are for. Default 'describe'. */
    kind?: Kind;
  }
}

export class RoutedExchange extends AwaitedExchange {
  /** Takes the parts of an answer, where the protocol has any. */
  onPart: ((values: Values) => boolean) | undefined = undefined;
  readonly #request: FastifyRequest;
  readonly #reply: FastifyReply;
  /** Of the headers that interceptors set, those that the reply has. */
  #put = 0;

  constructor(
    context: ExchangeContext,
    kind: Kind,
    request: FastifyRequest,
    reply: FastifyReply,
    listener: Listener,
  ) {
    const names = context.front.hooks(kind).headerNames;
    const peer = new SocketPeer(request.raw.socket, listener);
    super(context, kind, peer, headerValues(request.headers, names));
    this.#request = request;
    this.#reply = reply;
  }

  get operation(): string {
    return `${this.#request.method} ${this.#request.url}`;
  }

  /** Puts the headers that interceptors set into the reply. */
  putHeaders(): void {
    const { responseHeaders } = this;
    if (!responseHeaders || this.#reply.sent) return;
    for (; this.#put < responseHeaders.length; this.#put += 2) {
      void this.#reply.header(responseHeaders[this.#put]!, responseHeaders[this.#put + 1]!);
    }
  }

  protected override place(values: Values): void {
    super.place(values);
    this.putHeaders();
  }

  override part(values: Values): boolean {
    if (!this.onPart || this.answered) return super.part(values);
    if (this.settled) return false;
    try {
      this.place(values);
      return this.onPart(values);
    } catch (error) {
      this.fail(error);
      return false;
    }
  }
}

/** Puts an answer's status and headers into a reply. Fastify finds the length, which compression may change. */
export function putAnswer(reply: FastifyReply, answer: HttpAnswer): void {
  void reply.status(answer.status);
  const headers = headersOf(answer);
  for (let i = 0; i < headers.length; i += 2) {
    if (headers[i] !== 'content-length') void reply.header(headers[i]!, headers[i + 1]!);
  }
}

/** Whether this machine alone reaches the listener. */
export interface Listener {
  isLoopback(): boolean;
}

/** Makes an exchange for the request, which ends when the client goes away. */
export function exchangeFor(
  context: ExchangeContext,
  kind: Kind,
  request: FastifyRequest,
  reply: FastifyReply,
  listener: Listener,
): RoutedExchange {
  const exchange = new RoutedExchange(context, kind, request, reply, listener);
  request.exchange = exchange;
  reply.raw.once('close', () => {
    if (!reply.raw.writableFinished) exchange.gone();
  });
  return exchange;
}

/** Every route of the scope has its requests pass the interceptors before their bodies are read. */
export function addExchanges(
  scope: FastifyInstance,
  context: ExchangeContext,
  listener: Listener,
  defaultKind: Kind,
): void {
  scope.addHook('onRequest', (request, reply, done) => {
    const kind = request.routeOptions.config.kind ?? defaultKind;
    const exchange = exchangeFor(context, kind, request, reply, listener);
    const waiting = exchange.enter();
    if (waiting) void waiting.then(() => done(exchange.error));
    else done(exchange.error);
  });
}

/** A route's handler, whose outcome is the exchange's. */
export function handled<Request extends FastifyRequest, Result>(
  work: (
    request: Request,
    exchange: RoutedExchange,
    reply: FastifyReply,
  ) => Result | Promise<Result>,
): (request: Request, reply: FastifyReply) => Promise<Result> {
  return (request, reply) => {
    const exchange = request.exchange!;
    exchange.putHeaders();
    return exchange.complete(() => work(request, exchange, reply));
  };
}
