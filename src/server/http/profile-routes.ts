// A model watched while it serves: what it does, and where its requests' time and memory go.
import type { FastifyInstance } from 'fastify';
import { observe } from '../../runtime/observe.js';
import { InvalidInputError } from '../../errors.js';
import { HttpError } from '../../serving/errors.js';
import { find, type ModelParams } from '../../serving/about.js';
import type { Serving } from '../../serving/serving.js';
import { goneSignal } from './gone-signal.js';
import { modelRoutes } from './v2-routes.js';

const DEFAULT_SECONDS = 1;

/** Below the admin scope: watching takes memory, and says what others do. */
export function addProfileRoutes(app: FastifyInstance, serving: Serving): void {
  for (const prefix of modelRoutes) {
    app.post<{ Params: ModelParams; Querystring: { seconds?: string } }>(
      `${prefix}/profile`,
      async ({ params, query }, reply) => {
        const { model } = find(serving.catalog, params);
        const seconds = query.seconds === undefined ? DEFAULT_SECONDS : Number(query.seconds);
        if (!(seconds > 0 && seconds <= 60)) {
          throw new HttpError(
            400,
            `seconds: expected more than 0 and at most 60, got "${query.seconds}"`,
          );
        }
        try {
          return await observe(model, seconds, goneSignal(reply));
        } catch (error) {
          if (error instanceof InvalidInputError) throw new HttpError(409, error.message);
          throw error;
        }
      },
    );
  }
}
