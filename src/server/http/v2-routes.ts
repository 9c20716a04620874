// The v2 routes of models: metadata, readiness, configuration, statistics, infer, generate.
import { Readable } from 'node:stream';
import type { FastifyInstance, FastifyReply } from 'fastify';
import { InvalidInputError, TercelError } from '../../errors.js';
import { modelConfiguration, modelMetadata } from '../../protocol/v2/describe.js';
import { generatePlan, printGenerate } from '../../protocol/v2/generate.js';
import type { RestCodec } from '../../protocol/v2/rest-codec.js';
import { serverMetadata, statisticsOf, type ModelParams } from '../../serving/about.js';
import type { Serving } from '../../serving/serving.js';
import { inferAnswer, JOIN_UP_TO_BYTES, JSON_TYPE } from './answer.js';
import type { InferBody } from './body.js';
import { EventStream } from './event-stream.js';
import { handled, putAnswer, type RoutedExchange } from './routed-exchange.js';

export const modelRoutes = ['/v2/models/:model', '/v2/models/:model/versions/:version'] as const;

/** A body there must be. Throws InvalidInputError. */
export function bodyOf(body: InferBody | undefined): InferBody {
  if (!body) throw new InvalidInputError('the request has no body');
  return body;
}

export function addModelRoutes(
  app: FastifyInstance,
  serving: Serving,
  codec: RestCodec,
  sharedMemory: boolean,
): void {
  const health = { config: { kind: 'health' } } as const;
  const infer = { config: { kind: 'infer' } } as const;
  app.get(
    '/v2',
    handled(() => serverMetadata(sharedMemory)),
  );
  // Triton's clients read the status, KServe's the body.
  app.get(
    '/v2/health/live',
    health,
    handled(() => ({ live: true })),
  );
  app.get(
    '/v2/health/ready',
    health,
    handled(() => {
      if (serving.ready) return { ready: true };
      throw new TercelError('UNAVAILABLE', 'the models are still being loaded');
    }),
  );

  app.get(
    '/v2/models/stats',
    handled(() => statisticsOf(serving)),
  );

  type Call = { Params: ModelParams; Body: InferBody | undefined };
  for (const prefix of modelRoutes) {
    app.get<Call>(
      prefix,
      handled(({ params }, exchange) => {
        const { model, version } = params;
        const servable = exchange.find(model, version);
        return modelMetadata(servable, serving.catalog.versions(servable.name));
      }),
    );
    app.get<Call>(
      `${prefix}/ready`,
      health,
      handled(({ params }, exchange) => {
        const { model, version } = params;
        return { name: exchange.find(model, version).name, ready: true };
      }),
    );
    app.get<Call>(
      `${prefix}/config`,
      handled(({ params }, exchange) => {
        const { model, version } = params;
        return modelConfiguration(exchange.find(model, version));
      }),
    );
    app.get<Call>(
      `${prefix}/stats`,
      handled(({ params }) => statisticsOf(serving, params)),
    );
    app.post<Call>(
      `${prefix}/infer`,
      infer,
      handled(({ params, body }, exchange, reply) =>
        answerInfer(codec, exchange, params, body, reply),
      ),
    );
    for (const streamed of [false, true]) {
      app.post<Call>(
        `${prefix}/${streamed ? 'generate_stream' : 'generate'}`,
        infer,
        handled(({ params, body }, exchange, reply) =>
          answerGenerate(exchange, params, body, reply, streamed),
        ),
      );
    }
  }
}

async function answerInfer(
  codec: RestCodec,
  exchange: RoutedExchange,
  { model, version }: ModelParams,
  body: InferBody | undefined,
  reply: FastifyReply,
): Promise<FastifyReply> {
  exchange.concurrent = exchange.context.serving.burst.count();
  const servable = exchange.find(model, version);
  const { json, binary, bytes } = bodyOf(body);
  exchange.bytesIn = bytes;
  const inputs = json
    ? await codec.readLater(exchange, json, binary)
    : codec.readRaw(exchange, servable, binary);
  const values = await exchange.values(servable, inputs);
  const response = await codec.writeLater(exchange, servable, values);
  const answer = inferAnswer(response, undefined);
  exchange.bytesOut = answer.bytes;
  putAnswer(reply, answer);
  const { parts } = answer;
  if (parts.length === 1) return reply.send(parts[0]);
  if (answer.bytes <= JOIN_UP_TO_BYTES) return reply.send(Buffer.concat(parts, answer.bytes));
  return reply
    .header('content-length', answer.bytes)
    .send(Readable.from(parts, { objectMode: false }));
}

async function answerGenerate(
  exchange: RoutedExchange,
  { model, version }: ModelParams,
  body: InferBody | undefined,
  reply: FastifyReply,
  streamed: boolean,
): Promise<FastifyReply> {
  exchange.concurrent = exchange.context.serving.burst.count();
  const servable = exchange.find(model, version);
  const { json, bytes } = bodyOf(body);
  if (!json) throw new InvalidInputError('the request has no body');
  exchange.bytesIn = bytes;
  const inputs = generatePlan(exchange, json, servable.inputs);
  if (!streamed) {
    const values = await exchange.values(servable, inputs);
    const text = printGenerate(servable, exchange.id, values);
    exchange.bytesOut = text.length;
    return reply.type(JSON_TYPE).send(text);
  }
  const events = new EventStream(exchange, reply);
  exchange.onPart = (values) => events.write(printGenerate(servable, exchange.id, values));
  try {
    const values = await exchange.values(servable, inputs);
    const isAnswer = Object.keys(values).length > 0;
    return events.end(isAnswer ? printGenerate(servable, exchange.id, values) : undefined);
  } catch (error) {
    if (!events.begun) throw error;
    exchange.failWork(error);
    return events.fail(exchange.error!);
  }
}
