// The logging extension's routes.
import type { FastifyInstance } from 'fastify';
import type { Logging } from '../../serving/log-settings.js';
import type { InferBody } from './body.js';
import { jsonOf } from './json-body.js';
import { handled } from './routed-exchange.js';

export function addLoggingRoutes(app: FastifyInstance, logging: Logging): void {
  app.get(
    '/v2/logging',
    handled(() => logging.settings),
  );
  app.post<{ Body: InferBody | undefined }>(
    '/v2/logging',
    handled(({ body }) => {
      logging.change(jsonOf(body));
      return logging.settings;
    }),
  );
}
