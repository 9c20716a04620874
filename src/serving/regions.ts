// The system shared memory extension's routes.
//
// Source: Triton's "Shared-Memory Extension".
import type { FastifyInstance } from 'fastify';
import { SharedMemory, type SharedRegion } from '../runtime/shared-memory.js';
import { decodeRegisterRequest, regionStatus, NO_SHARED_MEMORY } from '../protocol/v2/spans.js';
import type { InferBody } from '../server/http/body.js';
import { HttpError } from './errors.js';

/** The shared memory that an option allows. */
export function sharedMemoryOf(
  option: boolean | SharedMemory | undefined,
): SharedMemory | undefined {
  return option === true ? new SharedMemory() : option || undefined;
}

/** A region by its name. Throws HttpError (404). */
export function findRegions(memory: SharedMemory, name: string | undefined): SharedRegion[] {
  const regions = memory.list(name);
  if (name !== undefined && regions.length === 0) {
    throw new HttpError(404, `shared memory region "${name}" is not registered`);
  }
  return regions;
}

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
