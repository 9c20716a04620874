// The system shared memory extension's routes.
//
// Source: Triton's "Shared-Memory Extension".
import type { FastifyInstance } from 'fastify';
import { decodeRegisterRequest, regionStatus } from '../../protocol/v2/spans.js';
import type { SharedRegions } from '../../serving/regions.js';
import type { InferBody } from './body.js';
import { jsonOf } from './json-body.js';
import { handled } from './routed-exchange.js';

export function addSharedMemoryRoutes(app: FastifyInstance, regions: SharedRegions): void {
  const prefix = '/v2/systemsharedmemory';
  const one = `${prefix}/region/:region`;
  type Call = { Params: { region: string }; Body: InferBody | undefined };

  app.get(
    `${prefix}/status`,
    handled(() => regionStatus(regions.find(undefined))),
  );
  app.get<Call>(
    `${one}/status`,
    handled(({ params }) => regionStatus(regions.find(params.region))),
  );
  app.post<Call>(
    `${one}/register`,
    handled(({ params, body }, _exchange, reply) => {
      const { key, offset, bytes } = decodeRegisterRequest(jsonOf(body));
      regions.register({ name: params.region, key, offset, bytes });
      return reply.send();
    }),
  );
  app.post<Call>(
    `${one}/unregister`,
    handled(({ params }, _exchange, reply) => {
      // Triton answers the same for one that is not there: a client that cleans up twice did nothing wrong.
      regions.unregister(params.region);
      return reply.send();
    }),
  );
  app.post(
    `${prefix}/unregister`,
    handled((_request, _exchange, reply) => {
      regions.unregister(undefined);
      return reply.send();
    }),
  );
}
