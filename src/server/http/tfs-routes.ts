// TensorFlow Serving's REST routes, under /v1.
import type { IncomingMessage } from 'node:http';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { tfMetadata } from '../../protocol/tfs/describe.js';
import {
  classesOf,
  decodeExamples,
  encodeClassify,
  encodeRegress,
  regressionsOf,
} from '../../protocol/tfs/examples.js';
import { decodePredict, encodePredict, verbOf, type TfsParams } from '../../protocol/tfs/rest.js';
import { parseCarved } from '../../runtime/json-carve.js';
import { find } from '../../serving/about.js';
import type { Burst } from '../../serving/burst.js';
import { HttpError } from '../../serving/errors.js';
import type { Serving } from '../../serving/serving.js';
import { runServable, statusesOf } from '../../serving/tfs.js';
import type { Tensor } from '../../tensor.js';
import { readInferBody, type InferBody } from './body.js';
import { goneSignal } from './gone-signal.js';

/** predict, classify, regress; status and metadata. */
export function addTfsRoutes(
  app: FastifyInstance,
  serving: Serving,
  burst: Burst,
  bodyLimit: number,
): void {
  const { catalog } = serving;
  // Which numbers of a body are tensors depends on the protocol.
  app.removeAllContentTypeParsers();
  app.addContentTypeParser('*', (request: FastifyRequest, payload: IncomingMessage) =>
    readInferBody(request, payload, bodyLimit, (text) =>
      parseCarved(
        text,
        verbOf(request.params as TfsParams).verb === 'predict' ? 'rows' : 'tensors',
      ),
    ),
  );
  const answer = (reply: FastifyReply, body: Buffer): FastifyReply =>
    reply.type('application/json; charset=utf-8').send(body);

  type Call = { Params: TfsParams; Body: InferBody | undefined };
  for (const prefix of [
    '/v1/models/:model',
    '/v1/models/:model/versions/:version',
    '/v1/models/:model/labels/:version',
  ]) {
    app.get<Call>(prefix, async ({ params, url }) => {
      if (verbOf(params).verb) throw new HttpError(405, `GET is not allowed for ${url}; use POST`);
      return { model_version_status: await statusesOf(serving, params) };
    });
    app.get<Call>(`${prefix}/metadata`, ({ params }) => {
      const { name, version, model } = find(catalog, params);
      return tfMetadata(name, version, model.inputs, model.outputs);
    });
    // The router takes a colon for a parameter: the verb comes with the last of them.
    app.post<Call>(prefix, async (request, reply) => {
      const concurrent = burst.count();
      const { named, verb } = verbOf(request.params);
      if (!verb) {
        throw new HttpError(
          405,
          `POST is not allowed for ${request.url}; append :predict, :classify or :regress, or use GET`,
        );
      }
      const servable = find(catalog, named);
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
