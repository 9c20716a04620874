// The Fastify server: routes and limits, no logic of its own.
import {
  createServer as createHttpServer,
  type IncomingMessage,
  type RequestListener,
  type Server as HttpServer,
  type ServerResponse,
} from 'node:http';
import { createRequire } from 'node:module';
import type compressPlugin from '@fastify/compress';
import type { fastify, FastifyInstance, FastifyRequest, FastifyServerOptions } from 'fastify';
import { LeasePool } from '../../runtime/lease.js';
import { contextOf, type ServerBasics } from '../../serving/context.js';
import type { Kind } from '../../serving/interceptor.js';
import { isLoopback } from '../../serving/peer.js';
import type { Serving } from '../../serving/serving.js';
import { errorAnswer } from './answer.js';
import { readBody } from './body.js';
import { addControlRoutes } from './control-routes.js';
import { FastPath } from './fast-path.js';
import { addLoggingRoutes } from './logging-routes.js';
import { answerUnknown } from './not-found.js';
import { isDescribed, openApiDocument } from './openapi.js';
import { addProfileRoutes } from './profile-routes.js';
import { addExchanges, handled, putAnswer } from './routed-exchange.js';
import { addSharedMemoryRoutes } from './shared-memory-routes.js';
import { SmallBodyRoute } from './small-bodies.js';
import { addTfsRoutes } from './tfs-routes.js';
import { addModelRoutes } from './v2-routes.js';
import { Wire } from './wire.js';

const require = createRequire(import.meta.url);

export interface ServerOptions extends ServerBasics {
  /** Fastify's logger: false, true, or pino options. Default false. It takes all requests off the fast path. */
  logger?: FastifyServerOptions['logger'];
  /** Limit on a request's body, in bytes, after decompression. Default 64 MiB. */
  bodyLimitBytes?: number;
  /**
   * Answer infer requests ahead of Fastify's router, and of Node's HTTP layer where a connection
   * brings nothing else, while no hook, logger or error handler was added that Fastify would call.
   * Default true.
   */
  hotRoute?: boolean;
  /**
   * Makes the HTTP server: of node:https, with a certificate, or one with limits of its own. Default: one of
   * node:http.
   */
  httpServer?: (listener: RequestListener) => HttpServer;
}

const DEFAULT_BODY_LIMIT_BYTES = 64 * 1024 * 1024;

/** What Fastify calls for a request: whoever adds one wants it called for every request. */
const REQUEST_HOOKS = new Set([
  'onRequest',
  'preParsing',
  'preValidation',
  'preHandler',
  'preSerialization',
  'onSend',
  'onResponse',
  'onTimeout',
  'onError',
  'onRequestAbort',
  'onRoute', // it may give each route hooks of its own
]);

/**
 * A Fastify instance that serves models by the Open Inference Protocol v2, in JSON and with
 * binary tensors. It does not listen yet; closing it leaves the engine open.
 *
 * @param serving an Engine
 */
export function createServer(serving: Serving, options: ServerOptions = {}): FastifyInstance {
  // Loaded here: a program that only embeds the engine does not pay for a web framework.
  const Fastify = require('fastify') as typeof fastify;
  const compress = require('@fastify/compress') as typeof compressPlugin;
  const bodyLimit = options.bodyLimitBytes ?? DEFAULT_BODY_LIMIT_BYTES;
  const { context, regions, logging, close } = contextOf(serving, options);
  const path = new FastPath(context, () => isLoopbackOnly(app.server));
  path.enabled = (options.hotRoute ?? true) && !options.logger;
  const route = new SmallBodyRoute(path, bodyLimit);
  let wire: Wire | undefined;
  const app: FastifyInstance = Fastify({
    logger: options.logger ?? false,
    bodyLimit,
    forceCloseConnections: 'idle',
    routerOptions: { maxParamLength: 512 },
    serverFactory: (handler) => {
      const server = (options.httpServer ?? createHttpServer)(
        (request: IncomingMessage, response: ServerResponse) => {
          if (!route.take(request, response)) handler(request, response);
        },
      );
      // What Fastify sets on a server of its own making.
      server.keepAliveTimeout = 72_000;
      server.requestTimeout = 0;
      wire = new Wire(server, path, bodyLimit);
      return server;
    },
  });
  app.decorateRequest('exchange', null);
  void app.register(
    quietly(path, compress, {
      encodings: ['gzip', 'deflate'],
      requestEncodings: ['gzip', 'deflate'],
      customTypes: /^application\/(json|octet-stream)/,
    }),
  );

  // Clients send infer requests as JSON, as octet-stream, as form data (curl -d) or as nothing at all.
  const pool = new LeasePool();
  app.removeAllContentTypeParsers();
  app.addContentTypeParser('*', (request: FastifyRequest, payload: IncomingMessage) =>
    readBody(request.headers, payload, bodyLimit, pool),
  );
  app.addHook('onClose', (_app, done) => {
    close();
    done();
  });
  app.addHook('preClose', (done) => {
    path.enabled = false; // Fastify tells clients that it closes
    wire?.close();
    done();
  });

  app.setErrorHandler((error, request, reply) => {
    request.exchange?.failWork(error);
    request.exchange?.putHeaders();
    const answer = errorAnswer(error, undefined);
    if (answer.status >= 500) request.log.error(error);
    // What is left of a body that was refused would hold the connection open.
    if (!request.raw.complete) void reply.header('connection', 'close');
    putAnswer(reply, answer);
    void reply.send(answer.parts[0]);
  });
  app.setNotFoundHandler((request, reply) => answerUnknown(app, context, path, request, reply));

  /** A scope of routes, each of which the OpenAPI document has. */
  const addRoutes = (kind: Kind, add: (scope: FastifyInstance) => void): void => {
    void app.register((scope, _options, done) => {
      scope.addHook('onRoute', ({ method, url }) => {
        for (const each of [method].flat()) {
          if (each === 'HEAD' || isDescribed(each, url)) continue;
          throw new Error(`${each} ${url} is not in the OpenAPI document`);
        }
      });
      addExchanges(scope, context, path, kind);
      add(scope);
      done();
    });
  };

  // Plugins of their own, so that they come after compression, which hooks into the routes after it.
  addRoutes('describe', (scope) => {
    addModelRoutes(scope, serving, path.codec, regions.allowed);
    scope.get(
      '/openapi.json',
      handled(() => openApiDocument()),
    );
  });
  addRoutes('describe', (scope) => addTfsRoutes(scope, serving));
  addRoutes('control', (scope) => {
    addControlRoutes(scope, serving);
    addProfileRoutes(scope);
    addSharedMemoryRoutes(scope, regions);
    addLoggingRoutes(scope, logging);
  });
  yieldToHooks(app, path);
  app.decorate('hotRequests', { getter: () => path.requests });
  return app;
}

/** Whether only this machine reaches the server, wherever it listens. */
function isLoopbackOnly(server: HttpServer): boolean {
  const address = server.listening ? server.address() : null;
  return address === null || typeof address === 'string' || isLoopback(address.address);
}

/**
 * The compression plugin gives each route hooks; the fast path leaves requests that want compression to it.
 */
function quietly<Options extends object>(
  path: FastPath,
  plugin: (app: FastifyInstance, options: Options, done: (error?: Error) => void) => void,
  options: Options,
): (app: FastifyInstance, _options: object, done: (error?: Error) => void) => void {
  const register = (
    app: FastifyInstance,
    _options: object,
    done: (error?: Error) => void,
  ): void => {
    const { enabled } = path;
    plugin(app, options, done);
    path.enabled = enabled;
  };
  // As fastify-plugin has it: no scope of its own.
  return Object.assign(register, { [Symbol.for('skip-override')]: true });
}

/** Hooks and error handlers added from here on want to see every request. */
function yieldToHooks(app: FastifyInstance, path: FastPath): void {
  for (const [method, concerns] of [
    ['addHook', (name: unknown) => REQUEST_HOOKS.has(name as string)],
    ['setErrorHandler', () => true],
  ] as const) {
    const original = (app as unknown as Record<string, (...args: unknown[]) => unknown>)[method]!;
    Object.assign(app, {
      [method](this: FastifyInstance, ...args: unknown[]): unknown {
        // In a scope of its own it does not concern the routes that are here.
        if (this === app && concerns(args[0])) path.enabled = false;
        return original.apply(this, args);
      },
    });
  }
}
