// The model repository extension's routes.
import type { FastifyInstance } from 'fastify';
import { decodeIndexRequest, decodeLoadRequest } from '../../protocol/v2/control.js';
import { explicitRepository, indexOf } from '../../serving/control.js';
import type { Serving } from '../../serving/serving.js';
import type { InferBody } from './body.js';
import { jsonOf } from './json-body.js';
import { handled } from './routed-exchange.js';

/** The model repository extension: index, load, unload. */
export function addControlRoutes(app: FastifyInstance, serving: Serving): void {
  type Call = { Params: { model: string }; Body: InferBody | undefined };
  app.post<Call>(
    '/v2/repository/index',
    handled(({ body }) => {
      const { onlyReady } = decodeIndexRequest(jsonOf(body));
      return indexOf(serving, onlyReady);
    }),
  );

  app.post<Call>(
    '/v2/repository/models/:model/load',
    handled(async ({ params, body }, exchange, reply) => {
      const { model } = params;
      exchange.model = model;
      const load = decodeLoadRequest(jsonOf(body));
      await explicitRepository(serving).load(model, load);
      return reply.send();
    }),
  );

  app.post<Call>(
    '/v2/repository/models/:model/unload',
    handled(async ({ params }, exchange, reply) => {
      const { model } = params;
      exchange.model = model;
      await explicitRepository(serving).unload(model);
      return reply.send();
    }),
  );
}
