// A model watched while it serves: what it does, and where its requests' time and memory go.
import type { FastifyInstance } from 'fastify';
import { InvalidInputError } from '../../errors.js';
import type { ModelParams } from '../../serving/about.js';
import { watch } from '../../serving/watch.js';
import { handled } from './routed-exchange.js';
import { modelRoutes } from './v2-routes.js';

const DEFAULT_SECONDS = 1;

/** Control: watching takes memory, and says what others do. */
export function addProfileRoutes(app: FastifyInstance): void {
  for (const prefix of modelRoutes) {
    app.post<{ Params: ModelParams; Querystring: { seconds?: string } }>(
      `${prefix}/profile`,
      handled(({ params, query }, exchange) => {
        const { model, version } = params;
        const asked = query.seconds;
        const seconds = asked === undefined ? DEFAULT_SECONDS : Number(asked);
        if (!(seconds > 0 && seconds <= 60)) {
          throw new InvalidInputError(
            `seconds: expected more than 0 and at most 60, got "${asked}"`,
          );
        }
        return watch(exchange, exchange.find(model, version), seconds);
      }),
    );
  }
}
