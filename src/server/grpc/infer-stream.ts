// ModelStreamInfer: many infer requests on one call, each an exchange of its own.
import type { ServerDuplexStream } from '@grpc/grpc-js';
import type { TercelError } from '../../errors.js';
import type { GrpcCodec } from '../../protocol/v2/grpc-codec.js';
import {
  encodeGrpcEnd,
  encodeStreamError,
  encodeStreamResponse,
  type GrpcPlan,
} from '../../protocol/v2/grpc.js';
import { answerFor } from '../../serving/errors.js';
import { Exchange, type ExchangeContext } from '../../serving/exchange.js';
import type { Peer } from '../../serving/peer.js';
import type { Outcome } from '../../serving/interceptor.js';
import type { Values } from '../../types/servable.js';
import { deadlineOf, metadataValues, peerOf, type CallHost } from './call-exchange.js';
import { runMessage } from './run-message.js';

/** Requests of one stream that may be under way: its reading waits beyond them. */
const MAX_STREAMED = 512;

export type InferStream = ServerDuplexStream<Buffer, Buffer>;

/** One request of a stream. Its responses wait until those to the requests before it are out. */
class StreamedExchange extends Exchange {
  /** Responses that wait for their turn. */
  readonly responses: Buffer[] = [];
  readonly #stream: InferStreamOrder;
  readonly #codec: GrpcCodec;

  constructor(
    context: ExchangeContext,
    peer: Peer,
    headers: readonly (string | undefined)[],
    stream: InferStreamOrder,
    codec: GrpcCodec,
  ) {
    super(context, 'infer', peer, headers);
    this.#stream = stream;
    this.#codec = codec;
  }

  get operation(): string {
    return this.#stream.path;
  }

  run(message: Buffer): void {
    runMessage(this, this.#codec, message);
  }

  override part(values: Values): boolean {
    if (this.settled) return false;
    try {
      this.place(values);
      this.#push(this.#codec.write(this.plan as GrpcPlan, this.servable!, this.id, values, 'part'));
    } catch (error) {
      this.fail(error);
      return false;
    }
    this.#stream.flush();
    return this.#stream.isReady(this);
  }

  protected override write(values: Values): void {
    const plan = this.plan as GrpcPlan;
    const servable = this.servable!;
    if (this.bytesOut > 0 && Object.keys(values).length === 0) {
      // The parts were all.
      const end = encodeGrpcEnd(plan, servable, this.id);
      if (end) this.#push(end);
      return;
    }
    const end = this.bytesOut > 0 ? 'last' : 'only';
    this.#push(this.#codec.write(plan, servable, this.id, values, end));
  }

  protected override writeError(error: TercelError): void {
    this.responses.push(encodeStreamError(answerFor(error).message, this.id));
  }

  protected override settle(outcome: Outcome): void {
    super.settle(outcome);
    this.#stream.flush();
  }

  #push(response: Buffer): void {
    this.bytesOut += response.length;
    this.responses.push(encodeStreamResponse(response));
  }
}

/** The requests of a stream in their order. */
class InferStreamOrder {
  readonly path: string;
  readonly #call: InferStream;
  /** Oldest first. */
  readonly #exchanges: StreamedExchange[] = [];
  #ended = false;
  #over = false;
  #draining = false;
  #flushing = false;

  constructor(call: InferStream) {
    this.#call = call;
    this.path = call.getPath();
  }

  get over(): boolean {
    return this.#over;
  }

  /** Whether what an exchange answers now goes out at once. */
  isReady(exchange: StreamedExchange): boolean {
    return !this.#draining && this.#exchanges[0] === exchange;
  }

  add(exchange: StreamedExchange): void {
    this.#exchanges.push(exchange);
    if (this.#exchanges.length >= MAX_STREAMED || this.#draining) this.#call.pause();
  }

  /** The client sends nothing more. */
  end(): void {
    this.#ended = true;
    this.flush();
  }

  /** The client is gone. */
  cancel(): void {
    this.#over = true;
    for (const exchange of this.#exchanges.splice(0)) exchange.gone();
  }

  /** Sends what may go out. */
  flush(): void {
    if (this.#flushing) return;
    this.#flushing = true;
    const call = this.#call;
    for (;;) {
      const first = this.#exchanges[0];
      if (this.#over || this.#draining || !first) break;
      const response = first.responses.shift();
      if (response) {
        if (!call.write(response)) this.#drain();
      } else if (first.settled) {
        this.#exchanges.shift();
        this.#exchanges[0]?.drained(); // its turn
      } else {
        break;
      }
    }
    this.#flushing = false;
    if (this.#over) return;
    if (this.#exchanges.length === 0 && this.#ended) {
      this.#over = true;
      call.end();
    } else if (this.#exchanges.length < MAX_STREAMED && !this.#draining && call.isPaused()) {
      call.resume();
    }
  }

  #drain(): void {
    this.#draining = true;
    this.#call.once('drain', () => {
      this.#draining = false;
      this.flush();
      if (!this.#draining) this.#exchanges[0]?.drained();
    });
  }
}

/** Requests of a stream share batches; answers go out in the order of the requests. */
export function streamInfer(host: CallHost, codec: GrpcCodec, call: InferStream): void {
  const { context } = host;
  const peer = peerOf(call, host);
  const deadline = deadlineOf(call);
  const order = new InferStreamOrder(call);
  call.on('data', (message: Buffer) => {
    if (order.over) return;
    const values = metadataValues(call.metadata, context.front.hooks('infer').headerNames);
    const exchange = new StreamedExchange(context, peer, values, order, codec);
    exchange.deadlineAt = deadline;
    order.add(exchange);
    const waiting = exchange.enter();
    if (!waiting) {
      if (!exchange.settled) exchange.run(message);
      return;
    }
    void waiting.then(() => {
      if (!exchange.settled) exchange.run(message);
    });
  });
  call.on('end', () => order.end());
  call.on('cancelled', () => order.cancel());
  call.on('error', () => {}); // the client broke off; 'cancelled' says so too
}
