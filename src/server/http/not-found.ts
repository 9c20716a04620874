// Requests that no route takes: no such path, or another verb.
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';

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
  request: FastifyRequest,
  reply: FastifyReply,
): void {
  const path = request.url.split('?', 1)[0]!;
  const other = (['GET', 'POST'] as const).find(
    (method) => method !== request.method && app.findRoute({ method, url: routeOf(path) }) !== null,
  );
  if (other) void reply.status(405).header('allow', other);
  else void reply.status(404);
  void reply.send({
    error: other
      ? `${request.method} is not allowed for ${path}; use ${other}`
      : `there is nothing at ${path}`,
  });
}
