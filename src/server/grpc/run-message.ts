// ModelInfer requests, however they came: alone, or on a stream.
import type { GrpcCodec } from '../../protocol/v2/grpc-codec.js';
import type { GrpcPlan } from '../../protocol/v2/grpc.js';
import type { Exchange } from '../../serving/exchange.js';

/** Reads a message and starts it; the exchange is told of whatever goes wrong. */
export function runMessage(exchange: Exchange, codec: GrpcCodec, message: Buffer): void {
  exchange.concurrent = exchange.context.serving.burst.count();
  exchange.bytesIn = message.length;
  try {
    const inputs = codec.read(exchange, message);
    const { model, version } = exchange.plan as GrpcPlan;
    exchange.begin(exchange.find(model, version), inputs);
  } catch (error) {
    exchange.fail(error);
  }
}
