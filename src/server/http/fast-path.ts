// Infer requests that are answered ahead of Fastify: what the wire and the route of small bodies have in common.
import { RestCodec } from '../../protocol/v2/rest-codec.js';
import type { Exchange, ExchangeContext } from '../../serving/exchange.js';
import { Targets, type Target } from '../../serving/targets.js';

export class FastPath {
  /** Off where Fastify has anything to add. */
  enabled = true;
  /** Requests that took it. */
  requests = 0;
  readonly context: ExchangeContext;
  readonly codec: RestCodec;
  /** Whether this machine alone reaches the listener. */
  readonly isLoopback: () => boolean;
  readonly #targets = new Targets();

  constructor(context: ExchangeContext, isLoopback: () => boolean) {
    this.context = context;
    this.codec = new RestCodec(context.spans);
    this.isLoopback = isLoopback;
  }

  /** What a path names; null where it is not one of infer requests. */
  target(url: string): Target | null {
    return this.#targets.of(url);
  }
}

/** Reads an infer request and starts it; the exchange is told of whatever goes wrong. */
export function runInfer(
  exchange: Exchange,
  codec: RestCodec,
  { name, version }: Target,
  json: Buffer,
  binary: Uint8Array,
): void {
  exchange.concurrent = exchange.context.serving.burst.count();
  try {
    const servable = exchange.find(name, version);
    exchange.begin(servable, codec.read(exchange, json, binary));
  } catch (error) {
    exchange.fail(error);
  }
}
