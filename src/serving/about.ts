// The v2 routes of models: metadata, readiness, configuration, statistics, infer.
import { Readable } from 'node:stream';
import type { FastifyInstance, FastifyReply } from 'fastify';
import { printJsonLater } from '../runtime/json-print.js';
import { type Later } from '../runtime/json-carve.js';
import { withDefaults } from './defaults.js';
import { type Engine } from '../engine.js';
import { type Servable } from '../catalog/model-servable.js';
import {
  modelConfiguration,
  modelMetadata,
  modelStatistics,
  type DescribedModel,
} from '../protocol/v2/describe.js';
import { decodeInferRequest, decodeRawRequest, encodeInferResponse } from '../protocol/v2/rest.js';
import { decodeGenerate, encodeGenerate, event } from '../protocol/v2/generate.js';
import type { Regions } from '../protocol/v2/spans.js';
import { version } from '../version.js';
import type { Arrivals } from './burst.js';
import type { InferBody } from '../server/http/body.js';
import { HttpError } from './errors.js';

/** Larger responses go to the socket piece by piece instead of being joined first. */
const JOIN_UP_TO_BYTES = 64 * 1024;

export interface ModelParams {
  model: string;
  version?: string;
}

/** The model that a request names. Throws HttpError (404). */
export function find(engine: Engine, { model, version: wanted }: ModelParams): Servable {
  const servable = engine.find(model, wanted);
  if (servable) return servable;
  const versions = engine.versions(model);
  throw new HttpError(
    404,
    versions.length
      ? `model "${model}" has no version ${wanted}; it has ${versions.join(', ')}`
      : `model "${model}" does not exist`,
  );
}

/** What the codecs want to know of a model. */
export function describe({ name, version, model, config }: Servable): DescribedModel {
  return {
    name,
    version,
    inputs: model.inputs,
    outputs: model.outputs,
    stats: model.stats(),
    file: config.file,
    maxBatchSize: config.maxBatchSize,
    versions: config.versions,
    labels: config.labels,
    providers: model.providers,
  };
}

/** Aborts when the client goes away before it was answered. */
export function goneSignal(reply: FastifyReply): AbortSignal {
  const controller = new AbortController();
  reply.raw.once('close', () => {
    if (!reply.raw.writableFinished) controller.abort(new Error('the client went away'));
  });
  return controller.signal;
}

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

/** What the server can do besides the protocol's core. */
export function serverMetadata(sharedMemory: boolean): {
  name: string;
  version: string;
  extensions: string[];
} {
  const extensions = [
    'binary_tensor_data',
    'classification',
    'logging',
    'model_configuration',
    'model_repository',
    'parameters',
    'schedule_policy',
    'statistics',
    ...(sharedMemory ? ['system_shared_memory'] : []),
  ];
  return { name: 'tercel', version, extensions };
}

/** Statistics of all versions of a model, or of one; of all models where none is named. */
export function statisticsOf(engine: Engine, params?: ModelParams): object {
  const names = params ? [find(engine, params).name] : engine.names();
  const servables =
    params?.version !== undefined
      ? [find(engine, params)]
      : names.flatMap((name) => engine.versions(name).map((v) => engine.find(name, v)!));
  // Kept by nobody else: the time of the last request is not worth a clock read for each.
  return modelStatistics(servables.map((servable) => ({ ...describe(servable), lastMs: 0 })));
}

export function addModelRoutes(
  app: FastifyInstance,
  engine: Engine,
  arrivals: Arrivals,
  regions: Regions | undefined,
): void {
  app.get('/v2', () => serverMetadata(regions !== undefined));
  // Triton's clients read the status, KServe's the body.
  app.get('/v2/health/live', () => ({ live: true }));
  app.get('/v2/health/ready', () => {
    if (!engine.ready) throw new HttpError(503, 'the models are still being loaded');
    return { ready: true };
  });

  app.get('/v2/models/stats', () => statisticsOf(engine));

  for (const prefix of modelRoutes) {
    app.get<{ Params: ModelParams }>(prefix, ({ params }) => {
      const { name, model } = find(engine, params);
      return modelMetadata(name, engine.versions(name), model.inputs, model.outputs);
    });
    app.get<{ Params: ModelParams }>(`${prefix}/ready`, ({ params }) => {
      const { name } = find(engine, params);
      return { name, ready: true };
    });
    app.get<{ Params: ModelParams }>(`${prefix}/config`, ({ params }) =>
      modelConfiguration(describe(find(engine, params))),
    );
    app.get<{ Params: ModelParams }>(`${prefix}/stats`, ({ params }) =>
      statisticsOf(engine, params),
    );
    app.post<{ Params: ModelParams; Body: InferBody | undefined }>(
      `${prefix}/infer`,
      async ({ params, body }, reply) => {
        const concurrent = arrivals.count();
        const servable = find(engine, params);
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
          const concurrent = arrivals.count();
          const servable = find(engine, params);
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
