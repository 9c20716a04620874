// The system shared memory extension's routes.
//
// Source: Triton's "Shared-Memory Extension".
import type { FastifyInstance } from 'fastify';
import { decodeRegisterRequest, NO_SHARED_MEMORY, regionStatus } from '../../protocol/v2/spans.js';
import type { SharedMemory } from '../../runtime/shared-memory.js';
import { HttpError } from '../../serving/errors.js';
import { findRegions } from '../../serving/regions.js';
import type { InferBody } from './body.js';

/**
 * @param memory undefined where it is not allowed: then every route says so
 */
export function addSharedMemoryRoutes(
  app: FastifyInstance,
  memory: SharedMemory | undefined,
): void {
  const allowed = (): SharedMemory => {
    if (memory) return memory;
    throw new HttpError(400, NO_SHARED_MEMORY);
  };
  const prefix = '/v2/systemsharedmemory';
  const one = `${prefix}/region/:region`;
  type Params = { Params: { region: string }; Body: InferBody | undefined };

  app.get(`${prefix}/status`, () => regionStatus(findRegions(allowed(), undefined)));
  app.get<Params>(`${one}/status`, ({ params }) =>
    regionStatus(findRegions(allowed(), params.region)),
  );
  app.post<Params>(`${one}/register`, ({ params, body }, reply) => {
    const { key, offset, bytes } = decodeRegisterRequest(body?.json?.value);
    allowed().register({ name: params.region, key, offset, bytes });
    return reply.send();
  });
  app.post<Params>(`${one}/unregister`, ({ params }, reply) => {
    // Triton answers the same for one that is not there: a client that cleans up twice did nothing wrong.
    allowed().unregister(params.region);
    return reply.send();
  });
  app.post(`${prefix}/unregister`, (_request, reply) => {
    allowed().unregister();
    return reply.send();
  });
}
