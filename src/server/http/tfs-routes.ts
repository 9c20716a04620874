// TensorFlow Serving's REST routes, under /v1.
import type { IncomingMessage } from 'node:http';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { parseCarved } from '../../runtime/json-carve.js';
import { withDefaults } from '../../serving/defaults.js';
import { type Engine } from '../../engine.js';
import { type Servable } from '../../catalog/model-servable.js';
import {
  classesOf,
  decodeExamples,
  encodeClassify,
  encodeRegress,
  regressionsOf,
} from '../../protocol/tfs/examples.js';
import { decodePredict, encodePredict } from '../../protocol/tfs/rest.js';
import { tfMetadata, versionStatuses } from '../../protocol/tfs/describe.js';
import { InvalidInputError } from '../../errors.js';
import { isTensor, type Tensor, type Value } from '../../tensor.js';
import type { Arrivals } from '../../serving/burst.js';
import { readInferBody, type InferBody } from './body.js';
import { indexOf } from '../../serving/control.js';
import { HttpError } from '../../serving/errors.js';
import { find, goneSignal } from '../../serving/about.js';

interface Params {
  model: string;
  version?: string;
}

/** The statuses of a model's versions, or of one. Throws HttpError (404). */
export async function statusesOf(
  engine: Engine,
  { model, version }: Params,
): Promise<ReturnType<typeof versionStatuses>> {
  const resolved =
    version === undefined ? undefined : (engine.find(model, version)?.version ?? version);
  const entries = (await indexOf(engine, false)).filter(
    (entry) => entry.name === model && (resolved === undefined || entry.version === resolved),
  );
  // Raises the one error that says what there is instead.
  if (entries.length === 0) find(engine, version === undefined ? { model } : { model, version });
  return versionStatuses(entries);
}

/** Runs a model as a request of its own; outputs by name, in the model's order. */
export async function runServable(
  { model, config }: Servable,
  inputs: Record<string, Tensor>,
  how: {
    signal: AbortSignal;
    concurrent: boolean;
    timeoutMs?: number | undefined;
    outputs?: string[] | undefined;
  },
): Promise<Record<string, Tensor>> {
  const { signal, concurrent, timeoutMs, outputs } = how;
  const values = await model.run<Record<string, Value>>(inputs, {
    ...withDefaults(config, timeoutMs === undefined ? {} : { timeoutMs }),
    ...(outputs && { outputs }),
    signal,
    results: 'shared',
    concurrent,
  });
  for (const [name, value] of Object.entries(values)) {
    if (!isTensor(value)) {
      throw new InvalidInputError(
        `output "${name}" is no tensor; TensorFlow Serving's protocol carries tensors only`,
      );
    }
  }
  return values as Record<string, Tensor>;
}

/** predict, classify, regress; status and metadata. */
export function addTfsRoutes(
  app: FastifyInstance,
  engine: Engine,
  arrivals: Arrivals,
  bodyLimit: number,
): void {
  // Which numbers of a body are tensors depends on the protocol.
  app.removeAllContentTypeParsers();
  app.addContentTypeParser('*', (request: FastifyRequest, payload: IncomingMessage) =>
    readInferBody(request, payload, bodyLimit, (text) =>
      parseCarved(text, verbOf(request.params as Params).verb === 'predict' ? 'rows' : 'tensors'),
    ),
  );
  const answer = (reply: FastifyReply, body: Buffer): FastifyReply =>
    reply.type('application/json; charset=utf-8').send(body);

  type Call = { Params: Params; Body: InferBody | undefined };
  for (const prefix of [
    '/v1/models/:model',
    '/v1/models/:model/versions/:version',
    '/v1/models/:model/labels/:version',
  ]) {
    app.get<Call>(prefix, async ({ params, url }) => {
      if (verbOf(params).verb) throw new HttpError(405, `GET is not allowed for ${url}; use POST`);
      return { model_version_status: await statusesOf(engine, params) };
    });
    app.get<Call>(`${prefix}/metadata`, ({ params }) => {
      const { name, version, model } = find(engine, params);
      return tfMetadata(name, version, model.inputs, model.outputs);
    });
    // The router takes a colon for a parameter: the verb comes with the last of them.
    app.post<Call>(prefix, async (request, reply) => {
      const concurrent = arrivals.count();
      const { named, verb } = verbOf(request.params);
      if (!verb) {
        throw new HttpError(
          405,
          `POST is not allowed for ${request.url}; append :predict, :classify or :regress, or use GET`,
        );
      }
      const servable = find(engine, named);
      const json = request.body?.json;
      if (!json) throw new HttpError(400, 'the request has no body');
      const signal = goneSignal(reply);
      const run = (inputs: Record<string, Tensor>): Promise<Record<string, Tensor>> =>
        runServable(servable, inputs, { signal, concurrent });
      const { inputs } = servable.model;
      if (verb === 'predict') {
        const decoded = decodePredict(json, inputs);
        return answer(reply, encodePredict(await run(decoded.inputs), decoded.byRows));
      }
      const values = await run(decodeExamples(json.value, inputs));
      return answer(
        reply,
        verb === 'classify'
          ? encodeClassify(classesOf(values, servable.config.classNames))
          : encodeRegress(regressionsOf(values)),
      );
    });
  }
}

const verbs = /^(.+):(predict|classify|regress)$/;

/** What a path names, and what shall be done with it; no verb where there is none. */
function verbOf(params: Params): { named: Params; verb: string | undefined } {
  const last = params.version ?? params.model;
  const [, name, verb] = verbs.exec(last) ?? [];
  if (name === undefined) return { named: params, verb: undefined };
  const named =
    params.version === undefined ? { model: name } : { model: params.model, version: name };
  return { named, verb };
}
