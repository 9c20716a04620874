// Requests that no route takes: no such path, or another verb.
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { NotFoundError, TercelError } from '../../errors.js';
import type { ExchangeContext } from '../../serving/exchange.js';
import { exchangeFor, type Listener } from './routed-exchange.js';

/** The route that a path would match, for telling "no such path" from "not this verb". */
function routeOf(path: string): string {
  return path
    .replace(/^\/v2\/(repository\/)?models\/(?!stats$)[^/]+/, '/v2/$1models/:model')
    .replace(/^\/v1\/models\/[^/]+/, '/v1/models/:model')
    .replace(/\/(versions|labels)\/[^/]+/, '/$1/:version');
}

/** Answers 404, or 405 with the verb that the path takes. */
export function answerUnknown(
  app: FastifyInstance,
  context: ExchangeContext,
  listener: Listener,
  request: FastifyRequest,
  reply: FastifyReply,
): Promise<never> {
  const exchange = exchangeFor(context, 'describe', request, reply, listener);
  return exchange.perform(() => {
    const path = request.url.split('?', 1)[0]!;
    const other = (['GET', 'POST'] as const).find(
      (method) =>
        method !== request.method && app.findRoute({ method, url: routeOf(path) }) !== null,
    );
    if (!other) throw new NotFoundError(`there is nothing at ${path}`);
    void reply.header('allow', other);
    throw new TercelError(
      'METHOD_NOT_ALLOWED',
      `${request.method} is not allowed for ${path}; use ${other}`,
    );
  });
}
