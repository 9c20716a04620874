// TensorFlow Serving's REST routes, under /v1.
import type { FastifyInstance, FastifyReply } from 'fastify';
import { InvalidInputError, TercelError } from '../../errors.js';
import { planFor } from '../../protocol/plan.js';
import { tfMetadata } from '../../protocol/tfs/describe.js';
import {
  classesOf,
  decodeExamples,
  encodeClassify,
  encodeRegress,
  regressionsOf,
} from '../../protocol/tfs/examples.js';
import { decodePredict, encodePredict, verbOf, type TfsParams } from '../../protocol/tfs/rest.js';
import type { Serving } from '../../serving/serving.js';
import { statusesOf, tensorsOf } from '../../serving/tfs.js';
import { JSON_TYPE } from './answer.js';
import type { InferBody } from './body.js';
import { handled, type RoutedExchange } from './routed-exchange.js';
import { bodyOf } from './v2-routes.js';

/** predict, classify, regress; status and metadata. */
export function addTfsRoutes(app: FastifyInstance, serving: Serving): void {
  type Call = { Params: TfsParams; Body: InferBody | undefined };
  for (const prefix of [
    '/v1/models/:model',
    '/v1/models/:model/versions/:version',
    '/v1/models/:model/labels/:version',
  ]) {
    app.get<Call>(
      prefix,
      handled(async ({ params, url }) => {
        const named = params;
        if (verbOf(named).verb) {
          throw new TercelError('METHOD_NOT_ALLOWED', `GET is not allowed for ${url}; use POST`);
        }
        return { model_version_status: await statusesOf(serving, named) };
      }),
    );
    app.get<Call>(
      `${prefix}/metadata`,
      handled(({ params }, exchange) => {
        const { model, version } = params;
        const servable = exchange.find(model, version);
        return tfMetadata(servable.name, servable.version, servable.inputs, servable.outputs);
      }),
    );
    // The router takes a colon for a parameter: the verb comes with the last of them.
    app.post<Call>(
      prefix,
      { config: { kind: 'infer' } },
      handled(async ({ params, body, url }, exchange, reply) => {
        const { named, verb } = verbOf(params);
        if (!verb) {
          throw new TercelError(
            'METHOD_NOT_ALLOWED',
            `POST is not allowed for ${url}; append :predict, :classify or :regress, or use GET`,
          );
        }
        const text = await answerVerb(exchange, named, verb, body);
        exchange.bytesOut = text.length;
        return sendJson(reply, text);
      }),
    );
  }
}

function sendJson(reply: FastifyReply, text: Buffer): FastifyReply {
  return reply.type(JSON_TYPE).send(text);
}

async function answerVerb(
  exchange: RoutedExchange,
  { model, version }: TfsParams,
  verb: string,
  body: InferBody | undefined,
): Promise<Buffer> {
  exchange.concurrent = exchange.context.serving.burst.count();
  const servable = exchange.find(model, version);
  const { json, bytes } = bodyOf(body);
  if (!json) throw new InvalidInputError('the request has no body');
  exchange.bytesIn = bytes;
  exchange.plan = planFor({});
  if (verb === 'predict') {
    const { inputs, byRows } = decodePredict(json, servable.inputs);
    return encodePredict(tensorsOf(await exchange.values(servable, inputs)), byRows);
  }
  const inputs = decodeExamples(json, servable.inputs);
  const values = tensorsOf(await exchange.values(servable, inputs));
  return verb === 'classify'
    ? encodeClassify(classesOf(values, servable.about?.classNames ?? {}))
    : encodeRegress(regressionsOf(values));
}
