// Who may load and unload: anybody on a loopback listener, else whoever has the token.
import { timingSafeEqual } from 'node:crypto';
import type { AddressInfo } from 'node:net';
import type { FastifyInstance, FastifyRequest } from 'fastify';
import type { Engine } from '../engine.js';
import type { IndexEntry } from '../repository/records.js';
import type { Repository } from '../repository/repository.js';
import { InvalidInputError } from '../errors.js';
import { decodeIndexRequest, decodeLoadRequest } from '../protocol/v2/control.js';
import type { InferBody } from '../server/http/body.js';
import { HttpError } from './errors.js';

export interface ControlOptions {
  /** Whoever sends `Authorization: Bearer <token>` may control, and nobody else. */
  adminToken?: string;
  /** Anybody who reaches the listener may control. */
  allowAdmin?: boolean;
}

/** Throws InvalidInputError for a token that anybody would have. */
export function checkControl({ adminToken }: ControlOptions): void {
  if (adminToken === '') throw new InvalidInputError('adminToken: expected a token, got none');
}

export function isLoopback(address: string): boolean {
  return /^(127\.|::1$|::ffff:127\.)/.test(address);
}

function sameText(a: string, b: string): boolean {
  const [x, y] = [Buffer.from(a), Buffer.from(b)];
  return x.length === y.length && timingSafeEqual(x, y);
}

/**
 * Whether somebody may control: throws HttpError unless.
 *
 * @param authorization what came as the header of that name
 * @param open whether only this machine reaches the listener
 */
export function mayControl(
  authorization: string | undefined,
  open: boolean,
  options: ControlOptions,
): void {
  if (options.adminToken !== undefined) {
    const [scheme = '', token = ''] = (authorization ?? '').split(' ');
    if (scheme.toLowerCase() === 'bearer' && sameText(token, options.adminToken)) return;
    throw new HttpError(401, 'control endpoints need the header "Authorization: Bearer <token>"');
  }
  if (options.allowAdmin || open) return;
  throw new HttpError(
    403,
    'control endpoints are closed on a listener that is not loopback; configure a token, or allow them',
  );
}

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

/** The repository's index; without one, what is served. */
export async function indexOf(engine: Engine, onlyReady: boolean): Promise<IndexEntry[]> {
  if (engine.repository) return engine.repository.index(onlyReady);
  return engine
    .names()
    .flatMap((name) =>
      engine.versions(name).map((version) => ({ name, version, state: 'READY', reason: '' })),
    );
}

export function repositoryOf(engine: Engine): Repository {
  if (engine.repository) return engine.repository;
  throw new HttpError(400, 'the server has no model repository');
}

/** Every route of the scope is for those who may control. */
export function guard(app: FastifyInstance, options: ControlOptions): void {
  app.addHook('onRequest', (request, _reply, done) => {
    authorize(app, request, options);
    done();
  });
}

/** The model repository extension: index, load, unload. */
export function addControlRoutes(app: FastifyInstance, engine: Engine): void {
  app.post<{ Body: InferBody | undefined }>('/v2/repository/index', async ({ body }) => {
    const { onlyReady } = decodeIndexRequest(body?.json?.value);
    return indexOf(engine, onlyReady);
  });

  app.post<{ Params: { model: string }; Body: InferBody | undefined }>(
    '/v2/repository/models/:model/load',
    async ({ params, body }, reply) => {
      const repository = repositoryOf(engine);
      explicitOnly(repository);
      await repository.load(params.model, decodeLoadRequest(body?.json?.value));
      return reply.send();
    },
  );

  app.post<{ Params: { model: string }; Body: InferBody | undefined }>(
    '/v2/repository/models/:model/unload',
    async ({ params }, reply) => {
      const repository = repositoryOf(engine);
      explicitOnly(repository);
      await repository.unload(params.model);
      return reply.send();
    },
  );
}

export function explicitOnly({ control }: Repository): void {
  if (control === 'explicit') return;
  throw new HttpError(
    400,
    `explicit model load and unload are not allowed with model control "${control}"`,
  );
}
