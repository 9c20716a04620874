// The v2 routes of models: metadata, readiness, configuration, statistics, infer.
import { Readable } from 'node:stream';
import type { FastifyInstance, FastifyReply } from 'fastify';
import { modelConfiguration, modelMetadata } from '../../protocol/v2/describe.js';
import { decodeGenerate, encodeGenerate, event } from '../../protocol/v2/generate.js';
import {
  decodeInferRequest,
  decodeRawRequest,
  encodeInferResponse,
} from '../../protocol/v2/rest.js';
import type { Regions } from '../../protocol/v2/spans.js';
import type { Later } from '../../runtime/json-carve.js';
import { printJsonLater } from '../../runtime/json-print.js';
import {
  describe,
  find,
  serverMetadata,
  statisticsOf,
  type ModelParams,
} from '../../serving/about.js';
import type { Burst } from '../../serving/burst.js';
import { withDefaults } from '../../serving/defaults.js';
import { HttpError } from '../../serving/errors.js';
import type { Serving } from '../../serving/serving.js';
import type { InferBody } from './body.js';
import { goneSignal } from './gone-signal.js';

/** Larger responses go to the socket piece by piece instead of being joined first. */
const JOIN_UP_TO_BYTES = 64 * 1024;

function send(reply: FastifyReply, head: Buffer, binary: readonly Uint8Array[]): FastifyReply {
  if (binary.length === 0) return reply.type('application/json; charset=utf-8').send(head);
  const total = binary.reduce((bytes, part) => bytes + part.length, head.length);
  void reply
    .type('application/octet-stream')
    .header('inference-header-content-length', head.length);
  if (total <= JOIN_UP_TO_BYTES) return reply.send(Buffer.concat([head, ...binary], total));
  return reply
    .header('content-length', total)
    .send(Readable.from([head, ...binary], { objectMode: false }));
}

export const modelRoutes = ['/v2/models/:model', '/v2/models/:model/versions/:version'] as const;

export function addModelRoutes(
  app: FastifyInstance,
  serving: Serving,
  burst: Burst,
  regions: Regions | undefined,
): void {
  const { catalog } = serving;
  app.get('/v2', () => serverMetadata(regions !== undefined));
  // Triton's clients read the status, KServe's the body.
  app.get('/v2/health/live', () => ({ live: true }));
  app.get('/v2/health/ready', () => {
    if (!serving.ready) throw new HttpError(503, 'the models are still being loaded');
    return { ready: true };
  });

  app.get('/v2/models/stats', () => statisticsOf(catalog));

  for (const prefix of modelRoutes) {
    app.get<{ Params: ModelParams }>(prefix, ({ params }) => {
      const { name, model } = find(catalog, params);
      return modelMetadata(name, catalog.versions(name), model.inputs, model.outputs);
    });
    app.get<{ Params: ModelParams }>(`${prefix}/ready`, ({ params }) => {
      const { name } = find(catalog, params);
      return { name, ready: true };
    });
    app.get<{ Params: ModelParams }>(`${prefix}/config`, ({ params }) =>
      modelConfiguration(describe(find(catalog, params))),
    );
    app.get<{ Params: ModelParams }>(`${prefix}/stats`, ({ params }) =>
      statisticsOf(catalog, params),
    );
    app.post<{ Params: ModelParams; Body: InferBody | undefined }>(
      `${prefix}/infer`,
      async ({ params, body }, reply) => {
        const concurrent = burst.count();
        const servable = find(catalog, params);
        const { model, config } = servable;
        if (!body) throw new HttpError(400, 'the request has no body');
        const later: Later = [];
        const request = body.json
          ? decodeInferRequest(body.json, body.binary, regions, later)
          : decodeRawRequest(model.inputs, body.binary);
        await Promise.all(later);
        const values = await model.run(request.inputs, {
          ...withDefaults(config, {
            ...(request.priority && { priority: request.priority }),
            ...(request.timeoutMs && { timeoutMs: request.timeoutMs }),
          }),
          ...(request.outputs && { outputs: request.outputs.map((output) => output.name) }),
          signal: goneSignal(reply),
          results: 'shared',
          concurrent,
        });
        const response = encodeInferResponse(servable, request, values);
        const { template, tensors, binary } = response;
        return send(reply, await printJsonLater(template, tensors, false), binary);
      },
    );

    for (const streamed of [false, true]) {
      app.post<{ Params: ModelParams; Body: InferBody | undefined }>(
        `${prefix}/${streamed ? 'generate_stream' : 'generate'}`,
        async ({ params, body }, reply) => {
          const concurrent = burst.count();
          const servable = find(catalog, params);
          if (!body?.json) throw new HttpError(400, 'the request has no body');
          const { id, inputs, ...scheduling } = decodeGenerate(
            body.json.value,
            servable.model.inputs,
          );
          const values = await servable.model.run(inputs, {
            ...withDefaults(servable.config, scheduling),
            signal: goneSignal(reply),
            results: 'shared',
            concurrent,
          });
          const text = encodeGenerate(servable, id, values);
          // One response a request, as every ONNX run has: the stream has one event.
          if (streamed) return reply.type('text/event-stream; charset=utf-8').send(event(text));
          return reply.type('application/json; charset=utf-8').send(text);
        },
      );
    }
  }
}
