// The logging extension's routes, and the log of requests.
import type { FastifyInstance } from 'fastify';
import type { Logging } from '../../serving/log-settings.js';
import type { InferBody } from './body.js';

/** Logs requests while the level says so. Before the routes that it concerns. */
export function logRequests(app: FastifyInstance, logging: Logging): void {
  app.addHook('onResponse', (request, reply, done) => {
    if (logging.verbose) {
      const ms = reply.elapsedTime.toFixed(1);
      console.log(`${request.method} ${request.url} ${reply.statusCode} ${ms} ms`);
    }
    done();
  });
}

export function addLoggingRoutes(app: FastifyInstance, logging: Logging): void {
  app.get('/v2/logging', () => logging.settings);
  app.post<{ Body: InferBody | undefined }>('/v2/logging', ({ body }) => {
    logging.change(body?.json?.value);
    return logging.settings;
  });
}
