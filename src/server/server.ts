// The Fastify server: routes and limits, no logic of its own.
import { Readable } from 'node:stream';
import type { IncomingMessage } from 'node:http';
import { createRequire } from 'node:module';
import type { Socket } from 'node:net';
import type compressPlugin from '@fastify/compress';
import type {
  fastify,
  FastifyInstance,
  FastifyReply,
  FastifyRequest,
  FastifyServerOptions,
} from 'fastify';
import type { Engine, Servable } from '../engine/engine.js';
import {
  decodeInferRequest,
  decodeRawRequest,
  encodeInferResponse,
  modelMetadata,
} from '../protocol/v2.js';
import { version } from '../version.js';
import { readInferBody, type InferBody } from './body.js';
import { answerFor, HttpError } from './errors.js';

const require = createRequire(import.meta.url);

export interface ServerOptions {
  /** Fastify's logger: false, true, or pino options. Default false. */
  logger?: FastifyServerOptions['logger'];
  /** Limit on a request's body, in bytes, after decompression. Default 64 MiB. */
  bodyLimitBytes?: number;
}

const DEFAULT_BODY_LIMIT_BYTES = 64 * 1024 * 1024;
/** Larger responses go to the socket piece by piece instead of being joined first. */
const JOIN_UP_TO_BYTES = 64 * 1024;

interface ModelParams {
  model: string;
  version?: string;
}

function find(engine: Engine, { model, version: wanted }: ModelParams): Servable {
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

/** Aborts when the client goes away before it was answered. */
function goneSignal(reply: FastifyReply): AbortSignal {
  const controller = new AbortController();
  reply.raw.once('close', () => {
    if (!reply.raw.writableFinished) controller.abort(new Error('the client went away'));
  });
  return controller.signal;
}

function send(reply: FastifyReply, json: string, binary: readonly Uint8Array[]): FastifyReply {
  if (binary.length === 0) return reply.type('application/json').send(json);
  const head = Buffer.from(json, 'utf8');
  const total = binary.reduce((bytes, part) => bytes + part.length, head.length);
  void reply
    .type('application/octet-stream')
    .header('inference-header-content-length', head.length);
  if (total <= JOIN_UP_TO_BYTES) return reply.send(Buffer.concat([head, ...binary], total));
  return reply
    .header('content-length', total)
    .send(Readable.from([head, ...binary], { objectMode: false }));
}

/**
 * A Fastify instance that serves the engine's models by the Open Inference Protocol v2, in JSON and with
 * binary tensors. It does not listen yet; closing it leaves the engine open.
 */
export function createServer(engine: Engine, options: ServerOptions = {}): FastifyInstance {
  // Loaded here: a program that only embeds the engine does not pay for a web framework.
  const Fastify = require('fastify') as typeof fastify;
  const compress = require('@fastify/compress') as typeof compressPlugin;
  const bodyLimit = options.bodyLimitBytes ?? DEFAULT_BODY_LIMIT_BYTES;
  const app = Fastify({
    logger: options.logger ?? false,
    bodyLimit,
    forceCloseConnections: 'idle',
    routerOptions: { maxParamLength: 512 },
  });
  void app.register(compress, {
    encodings: ['gzip', 'deflate'],
    requestEncodings: ['gzip', 'deflate'],
    customTypes: /^application\/(json|octet-stream)/,
  });

  // Clients send infer requests as JSON, as octet-stream, as form data (curl -d) or as nothing at all.
  app.removeAllContentTypeParsers();
  app.addContentTypeParser('*', (request: FastifyRequest, payload: IncomingMessage) =>
    readInferBody(request, payload, bodyLimit),
  );

  closeUnusedConnections(app);

  app.setErrorHandler((error, request, reply) => {
    const { status, message } = answerFor(error);
    if (status >= 500) request.log.error(error);
    // What is left of a body that was refused would hold the connection open.
    if (!request.raw.complete) void reply.header('connection', 'close');
    void reply.status(status).send({ error: message });
  });
  app.setNotFoundHandler((request, reply) => {
    const path = request.url.split('?', 1)[0]!;
    const other = (['GET', 'POST'] as const).find(
      (method) =>
        method !== request.method && app.findRoute({ method, url: routeOf(path) }) !== null,
    );
    if (other) void reply.status(405).header('allow', other);
    else void reply.status(404);
    void reply.send({
      error: other
        ? `${request.method} is not allowed for ${path}; use ${other}`
        : `there is nothing at ${path}`,
    });
  });

  // A plugin of its own, so that it comes after compression, which hooks into the routes behind it.
  void app.register((scope, _options, done) => {
    addRoutes(scope, engine);
    done();
  });
  return app;
}

/**
 * Node's close() ends idle connections, but not those that clients opened in advance and never used:
 * they would hold it for a minute.
 */
function closeUnusedConnections(app: FastifyInstance): void {
  const unused = new Set<Socket>();
  app.server.on('connection', (socket: Socket) => {
    unused.add(socket);
    socket.once('close', () => unused.delete(socket));
  });
  app.server.on('request', (request: IncomingMessage) => unused.delete(request.socket));
  app.addHook('preClose', (done) => {
    for (const socket of unused) socket.destroy();
    done();
  });
}

function addRoutes(app: FastifyInstance, engine: Engine): void {
  app.get('/v2', () => ({ name: 'tercel', version, extensions: ['binary_tensor_data'] }));
  app.get('/v2/health/live', (_request, reply) => reply.send());
  app.get('/v2/health/ready', (_request, reply) => reply.send());

  for (const prefix of modelRoutes) {
    app.get<{ Params: ModelParams }>(prefix, ({ params }) => {
      const { name, model } = find(engine, params);
      return modelMetadata(name, engine.versions(name), model.inputs, model.outputs);
    });
    app.get<{ Params: ModelParams }>(`${prefix}/ready`, ({ params }, reply) => {
      find(engine, params);
      return reply.send();
    });
    app.post<{ Params: ModelParams; Body: InferBody | undefined }>(
      `${prefix}/infer`,
      async ({ params, body }, reply) => {
        const { name, version: served, model } = find(engine, params);
        if (!body) throw new HttpError(400, 'the request has no body');
        const request = body.raw
          ? decodeRawRequest(model.inputs, body.binary)
          : decodeInferRequest(body.json, body.binary);
        const values = await model.run(request.inputs, {
          ...(request.outputs && { outputs: request.outputs.map((output) => output.name) }),
          ...(request.priority && { priority: request.priority }),
          ...(request.timeoutMs && { timeoutMs: request.timeoutMs }),
          signal: goneSignal(reply),
        });
        const response = encodeInferResponse({ name, version: served }, request, values);
        return send(reply, response.json, response.binary);
      },
    );
  }
}

const modelRoutes = ['/v2/models/:model', '/v2/models/:model/versions/:version'] as const;

/** The route that a path would match, for telling "no such path" from "not this verb". */
function routeOf(path: string): string {
  return path
    .replace(/^\/v2\/models\/[^/]+/, '/v2/models/:model')
    .replace(/\/versions\/[^/]+/, '/versions/:version');
}
