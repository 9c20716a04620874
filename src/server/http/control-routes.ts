// The model repository extension's routes, and who may call them.
import type { AddressInfo } from 'node:net';
import type { FastifyInstance, FastifyRequest } from 'fastify';
import { decodeIndexRequest, decodeLoadRequest } from '../../protocol/v2/control.js';
import { isLoopback, mayControl, type ControlOptions } from '../../serving/access.js';
import { explicitRepository, indexOf } from '../../serving/control.js';
import type { Serving } from '../../serving/serving.js';
import type { InferBody } from './body.js';

function authorize(app: FastifyInstance, request: FastifyRequest, options: ControlOptions): void {
  const addresses = app.server.listening ? [app.server.address() as AddressInfo | string] : [];
  const open = addresses.every(
    (address) => typeof address === 'string' || isLoopback(address.address),
  );
  // A web page that the user looks at can reach loopback too; browsers say where a request is from.
  const { origin, authorization } = request.headers;
  const foreign =
    origin !== undefined && !/^https?:\/\/(localhost|127(\.\d+){3}|\[::1\])(:\d+)?$/.test(origin);
  mayControl(authorization, open && !foreign, options);
}

/** Every route of the scope is for those who may control. */
export function guard(app: FastifyInstance, options: ControlOptions): void {
  app.addHook('onRequest', (request, _reply, done) => {
    authorize(app, request, options);
    done();
  });
}

/** The model repository extension: index, load, unload. */
export function addControlRoutes(app: FastifyInstance, serving: Serving): void {
  app.post<{ Body: InferBody | undefined }>('/v2/repository/index', async ({ body }) => {
    const { onlyReady } = decodeIndexRequest(body?.json?.value);
    return indexOf(serving, onlyReady);
  });

  app.post<{ Params: { model: string }; Body: InferBody | undefined }>(
    '/v2/repository/models/:model/load',
    async ({ params, body }, reply) => {
      await explicitRepository(serving).load(params.model, decodeLoadRequest(body?.json?.value));
      return reply.send();
    },
  );

  app.post<{ Params: { model: string }; Body: InferBody | undefined }>(
    '/v2/repository/models/:model/unload',
    async ({ params }, reply) => {
      await explicitRepository(serving).unload(params.model);
      return reply.send();
    },
  );
}
