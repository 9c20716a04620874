// The Fastify server: routes and limits, no logic of its own.
import {
  createServer as createHttpServer,
  type IncomingMessage,
  type ServerResponse,
} from 'node:http';
import { createRequire } from 'node:module';
import type compressPlugin from '@fastify/compress';
import type { fastify, FastifyInstance, FastifyRequest, FastifyServerOptions } from 'fastify';
import type { SharedMemory } from '../../runtime/shared-memory.js';
import type { RegionSpan } from '../../protocol/v2/spans.js';
import { checkControl, type ControlOptions } from '../../serving/access.js';
import { Burst } from '../../serving/burst.js';
import { answerFor } from '../../serving/errors.js';
import { DirectInfer } from '../../serving/exchange.js';
import { Logging } from '../../serving/log-settings.js';
import { sharedMemoryOf } from '../../serving/regions.js';
import type { Serving } from '../../serving/serving.js';
import { readInferBody } from './body.js';
import { addControlRoutes, guard } from './control-routes.js';
import { addLoggingRoutes, logRequests } from './logging-routes.js';
import { answerUnknown } from './not-found.js';
import { isDescribed, openApiDocument } from './openapi.js';
import { addProfileRoutes } from './profile-routes.js';
import { addSharedMemoryRoutes } from './shared-memory-routes.js';
import { SmallBodyRoute } from './small-bodies.js';
import { addTfsRoutes } from './tfs-routes.js';
import { addModelRoutes } from './v2-routes.js';
import { Wire } from './wire.js';

const require = createRequire(import.meta.url);

export interface ServerOptions extends ControlOptions {
  /** Fastify's logger: false, true, or pino options. Default false. */
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
   * Clients on this machine may register system shared memory, and name it in requests. Whoever may
   * control the server can then have it read and write any object in /dev/shm that it may open itself.
   * Default false; a SharedMemory is one that other servers of the process have too.
   */
  allowSharedMemory?: boolean | SharedMemory;
  /** What is logged, where other servers of the process have it too. */
  logging?: Logging;
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
  const burst = new Burst();
  const memory = sharedMemoryOf(options.allowSharedMemory);
  const regions = memory && ((span: RegionSpan) => memory.span(span));
  const direct = new DirectInfer(serving.catalog, regions);
  const logging = options.logging ?? new Logging();
  const route = new SmallBodyRoute(direct, burst, bodyLimit);
  let wire: Wire | undefined;
  checkControl(options);
  direct.enabled = (options.hotRoute ?? true) && !options.logger;
  const app = Fastify({
    logger: options.logger ?? false,
    bodyLimit,
    forceCloseConnections: 'idle',
    routerOptions: { maxParamLength: 512 },
    serverFactory: (handler) => {
      const server = createHttpServer((request: IncomingMessage, response: ServerResponse) => {
        if (!route.take(request, response)) handler(request, response);
      });
      // What Fastify sets on a server of its own making.
      server.keepAliveTimeout = 72_000;
      server.requestTimeout = 0;
      wire = new Wire(server, direct, burst, bodyLimit);
      return server;
    },
  });
  void app.register(
    quietly(direct, compress, {
      encodings: ['gzip', 'deflate'],
      requestEncodings: ['gzip', 'deflate'],
      customTypes: /^application\/(json|octet-stream)/,
    }),
  );

  // Clients send infer requests as JSON, as octet-stream, as form data (curl -d) or as nothing at all.
  app.removeAllContentTypeParsers();
  app.addContentTypeParser('*', (request: FastifyRequest, payload: IncomingMessage) =>
    readInferBody(request, payload, bodyLimit),
  );

  logRequests(app, logging);
  app.addHook('onClose', (_app, done) => {
    if (options.allowSharedMemory === true) memory?.unregister();
    done();
  });
  app.addHook('preClose', (done) => {
    direct.enabled = false; // Fastify tells clients that it closes
    wire?.close();
    done();
  });

  app.setErrorHandler((error, request, reply) => {
    const { status, message } = answerFor(error);
    if (status >= 500) request.log.error(error);
    // What is left of a body that was refused would hold the connection open.
    if (!request.raw.complete) void reply.header('connection', 'close');
    void reply.status(status).send({ error: message });
  });
  app.setNotFoundHandler((request, reply) => answerUnknown(app, request, reply));

  /** A scope of routes, each of which the OpenAPI document has. */
  const addRoutes = (add: (scope: FastifyInstance) => void): void => {
    void app.register((scope, _options, done) => {
      scope.addHook('onRoute', ({ method, url }) => {
        for (const each of [method].flat()) {
          if (each === 'HEAD' || isDescribed(each, url)) continue;
          throw new Error(`${each} ${url} is not in the OpenAPI document`);
        }
      });
      add(scope);
      done();
    });
  };

  // Plugins of their own, so that they come after compression, which hooks into the routes behind it.
  addRoutes((scope) => {
    addModelRoutes(scope, serving, burst, regions);
    scope.get('/openapi.json', () => openApiDocument());
  });
  addRoutes((scope) => addTfsRoutes(scope, serving, burst, bodyLimit));
  addRoutes((scope) => {
    guard(scope, options);
    addControlRoutes(scope, serving);
    addProfileRoutes(scope, serving);
    addSharedMemoryRoutes(scope, memory);
    addLoggingRoutes(scope, logging);
  });
  yieldToHooks(app, direct);
  // Requests are logged where Fastify sees them.
  const yieldToLog = (): void => {
    direct.paused = logging.verbose;
  };
  logging.onChange(yieldToLog);
  yieldToLog();
  app.decorate('hotRequests', { getter: () => direct.answered });
  return app;
}

/**
 * The compression plugin gives each route hooks; DirectInfer leaves requests that want compression to it.
 */
function quietly<Options extends object>(
  direct: DirectInfer,
  plugin: (app: FastifyInstance, options: Options, done: (error?: Error) => void) => void,
  options: Options,
): (app: FastifyInstance, _options: object, done: (error?: Error) => void) => void {
  const register = (
    app: FastifyInstance,
    _options: object,
    done: (error?: Error) => void,
  ): void => {
    const { enabled } = direct;
    plugin(app, options, done);
    direct.enabled = enabled;
  };
  // As fastify-plugin has it: no scope of its own.
  return Object.assign(register, { [Symbol.for('skip-override')]: true });
}

/** Hooks and error handlers added from here on want to see every request. */
function yieldToHooks(app: FastifyInstance, direct: DirectInfer): void {
  for (const [method, concerns] of [
    ['addHook', (name: unknown) => REQUEST_HOOKS.has(name as string)],
    ['setErrorHandler', () => true],
  ] as const) {
    const original = (app as unknown as Record<string, (...args: unknown[]) => unknown>)[method]!;
    Object.assign(app, {
      [method](this: FastifyInstance, ...args: unknown[]): unknown {
        // In a scope of its own it does not concern the routes that are here.
        if (this === app && concerns(args[0])) direct.enabled = false;
        return original.apply(this, args);
      },
    });
  }
}
