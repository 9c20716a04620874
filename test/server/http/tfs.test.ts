// TensorFlow Serving's REST form; npm run interop has its own stubs against its gRPC form.
import type { FastifyInstance } from 'fastify';
import grpc from '@grpc/grpc-js';
import { createEngine, createServer, createTfsGrpcServer, type Engine } from 'tercel';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { identity, zipMap } from '../../support/models.js';

let engine: Engine;
let app: FastifyInstance;

beforeAll(async () => {
  engine = createEngine();
  await engine.load('echo', identity(1, ['n', 'm']));
  await engine.load('longs', identity(7, ['n', 'm']));
  await engine.load('bytes', identity(8, ['n']));
  await engine.load('line', identity(1, ['n']));
  await engine.load('maps', zipMap());
  app = createServer(engine);
  await app.ready();
});
afterAll(async () => {
  await app.close();
  await engine.close();
});

async function post(path: string, body: string): Promise<[status: number, body: string]> {
  const answer = await app.inject({ method: 'POST', url: `/v1/models/${path}`, payload: body });
  return [answer.statusCode, answer.body];
}

it.each([
  ['echo:predict', '{"instances":[[1,2.5],[3,4]]}', '{"predictions":[[1,2.5],[3,4]]}'],
  ['echo:predict', '{"inputs":{"x":[[NaN,-Infinity]]}}', '{"outputs":[[NaN,-Infinity]]}'],
  ['echo:predict', '{"instances":[{"x":[1]},{"x":[2]}]}', '{"predictions":[[1],[2]]}'],
  ['longs:predict', '{"inputs":[[9007199254740993]]}', '{"outputs":[[9007199254740993]]}'],
  ['bytes:predict', '{"instances":["a",{"b64":"aGk="}]}', '{"predictions":["a","hi"]}'],
  ['line/versions/1:predict', '{"instances":[1,2]}', '{"predictions":[1,2]}'],
  ['line:regress', '{"context":{"x":2},"examples":[{},{"x":3}]}', '{"results":[2,3]}'],
  [
    'echo:classify',
    '{"examples":[{"x":[0.5,1]},{"x":[2,3]}]}',
    '{"results":[[["0",0.5],["1",1]],[["0",2],["1",3]]]}',
  ],
])('%s of %s', async (path, body, expected) => {
  expect(await post(path, body)).toEqual([200, expected]);
});

it.each([
  ['echo:predict', '{"instances":[[1],[2,3]]}', 'a list of 2 where the others have 1'],
  ['echo:predict', '{"instances":[{"x":[1]},{"x":[2,"a"]}]}', 'expected float32 numbers'],
  // The place in the body, also where rows were put together.
  ['longs:predict', '{"instances":[{"x":[1]},{"x":[1.5]}]}', 'is no int64 (byte 30)'],
  ['echo:predict', '{"instances":[[1]],"inputs":[[1]]}', 'exactly one of'],
  ['echo:predict', '{"instances":[]}', 'one row or more'],
  ['longs:classify', '{"examples":[{"x":[1]}]}', 'cannot classify'],
  ['echo:regress', '{"examples":[{"x":[1,2]}]}', 'cannot regress'],
  ['bytes:predict', '{"instances":[{"b64":"/9gAgA=="}]}', 'are not UTF-8'],
  ['bytes:predict', '{"instances":[{"b64":"!!!"}]}', 'no base64'],
  ['bytes:predict', `{"inputs":${'['.repeat(99)}"a"${']'.repeat(99)}}`, 'more than 32 deep'],
  ['maps:predict', '{"inputs":[[1,2,3]]}', 'output "maps" is no tensor'],
  ['maps:classify', '{"examples":[{"scores":[1,2,3]}]}', 'output "maps" is no tensor'],
])('%s refuses %s', async (path, body, message) => {
  const [status, text] = await post(path, body);
  expect(JSON.parse(text)).toEqual({ error: expect.stringContaining(message) as string });
  expect(status).toBe(400);
});

it('reads rows where the path is escaped', async () => {
  expect(await post('line%3Apredict', '{"instances":[1]}')).toEqual([200, '{"predictions":[1]}']);
});

it('tells paths and verbs apart', async () => {
  expect(await post('echo', '{}')).toEqual([405, expect.stringContaining(':predict') as string]);
  expect(await post('nobody:predict', '{}')).toEqual([404, expect.anything() as string]);
  const got = await app.inject('/v1/models/echo:predict');
  expect(got.statusCode).toBe(405);
  expect((await app.inject('/v1/models/echo')).json()).toEqual({
    model_version_status: [
      { version: '1', state: 'AVAILABLE', status: { error_code: 'OK', error_message: '' } },
    ],
  });
});

it('answers over gRPC, junk too', async () => {
  const server = createTfsGrpcServer(engine);
  const client = new grpc.Client(
    `127.0.0.1:${await server.listen({ port: 0 })}`,
    grpc.credentials.createInsecure(),
  );
  const same = (bytes: Buffer): Buffer => bytes;
  const predict = (message: Buffer): Promise<Buffer | grpc.ServiceError> =>
    new Promise((resolve) => {
      const path = '/tensorflow.serving.PredictionService/Predict';
      client.makeUnaryRequest(path, same, same, message, (error, answer) =>
        resolve(error ?? answer!),
      );
    });
  // model_spec {name: "line"}, inputs {"x": {dtype: 1, tensor_shape {dim {size: 2}}, float_val: 7}}
  const body = Buffer.from(
    '0a060a046c696e65' + '12120a0178120d' + '0801' + '120412020802' + '2d0000e040',
    'hex',
  );
  const answer = (await predict(body)) as Buffer;
  // Twice 7: the value that came stands for the one that did not.
  expect(answer.toString('hex')).toContain('0000e0400000e040');
  expect(await predict(Buffer.from('ff'))).toMatchObject({ code: grpc.status.INVALID_ARGUMENT });
  client.close();
  await server.close();
});
