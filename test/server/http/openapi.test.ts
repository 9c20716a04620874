// The OpenAPI document: valid, all routes in it, and the server's answers as it says.
import { fileURLToPath } from 'node:url';
import { Validator } from '@seriousme/openapi-schema-validator';
import { Ajv2020 } from 'ajv/dist/2020.js';
import type { FastifyInstance } from 'fastify';
import { createEngine, createServer, type Engine } from 'tercel';
import { afterAll, beforeAll, expect, it } from 'vitest';

const root = fileURLToPath(new URL('../../..', import.meta.url));

interface Operation {
  requestBody?: object;
  responses: Record<string, { content?: Record<string, { schema: object }> }>;
}
interface Document {
  paths: Record<string, Record<string, Operation>>;
  components: object;
}

let engine: Engine;
let app: FastifyInstance;
let document: Document;

beforeAll(async () => {
  engine = createEngine();
  await engine.loadRepository(`${root}/models`, { control: 'explicit', models: ['digits'] });
  app = createServer(engine, { allowSharedMemory: true });
  await app.ready();
  document = (await app.inject('/openapi.json')).json();
});
afterAll(async () => {
  await app.close();
  await engine.close();
});

it('is valid', async () => {
  const { valid, errors } = await new Validator().validate(
    structuredClone(document) as unknown as Record<string, unknown>,
  );
  expect(errors).toBeUndefined();
  expect(valid).toBe(true);
});

it('has no route that is not there', () => {
  // The other way round, a route that is not in it fails when the server is made.
  for (const [path, operations] of Object.entries(document.paths)) {
    for (const method of Object.keys(operations)) {
      const url = path.replace(/:(predict|classify|regress)$/, '').replace(/\{(\w+)\}/g, ':$1');
      const route = app.findRoute({ method: method.toUpperCase(), url });
      expect(route, `${method} ${path}`).not.toBeNull();
    }
  }
  expect(Object.keys(document.paths).length).toBeGreaterThan(35);
});

it('describes what the server answers, on every route', async () => {
  const ajv = new Ajv2020({ strict: false });
  ajv.addSchema(document, 'openapi');
  const image = {
    inputs: [{ name: 'image', shape: [1, 1, 8, 8], datatype: 'FP32', data: Array(64).fill(0) }],
  };
  const pixels = Array.from({ length: 8 }, () => Array<number>(8).fill(0));
  const bodies: Record<string, unknown> = {
    infer: image,
    generate: undefined, // 64 pixels are no scalar: an error, which is described too
    predict: { inputs: [[pixels]] },
    classify: { examples: [{ image: pixels.flat() }] },
  };
  let good = 0;
  for (const [path, operations] of Object.entries(document.paths)) {
    // What it takes away is asked last.
    for (const [method, { responses }] of Object.entries(operations)) {
      if (path.endsWith('unload')) continue;
      const url = path
        .replace('{model}', 'digits')
        .replace('labels/{version}', 'versions/1')
        .replace('{version}', '1')
        .replace('{region}', 'nobody');
      const body = bodies[/(\w+)}?$/.exec(path)![1]!] ?? {};
      const answer = await app.inject({
        method: method.toUpperCase() as 'GET',
        url,
        ...(method === 'post' && { payload: JSON.stringify(body) }),
      });
      const kind = answer.statusCode === 200 ? '200' : `${String(answer.statusCode)[0]}XX`;
      if (kind === '200') good++;
      const described = responses[kind]!.content;
      if (!described) {
        expect(answer.body, `${method} ${path}`).toBe('');
        continue;
      }
      const type = (answer.headers['content-type'] as string).split(';')[0]!;
      expect(Object.keys(described), `${method} ${path}`).toContain(type);
      if (type !== 'application/json') continue;
      const pointer = `openapi#/paths/${path.replaceAll('/', '~1')}/${method}/responses/${kind}/content/application~1json/schema`;
      const validate = ajv.compile({ $ref: encodeURI(pointer) });
      const valid = validate(answer.json());
      expect(validate.errors, `${method} ${path}: ${answer.body.slice(0, 200)}`).toBeNull();
      expect(valid).toBe(true);
    }
  }
  expect(good).toBeGreaterThan(25);
});
