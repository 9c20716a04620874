// POST /v2/models/{model}/profile: a model watched while it serves.
import { setImmediate as turn } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { FastifyInstance } from 'fastify';
import { createEngine, createServer, type Engine } from 'tercel';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { until } from '../../support/wait.js';

const mlp = fileURLToPath(new URL('../../../models/bench/mlp/1/model.onnx', import.meta.url));
let engine: Engine;
let app: FastifyInstance;
let url: string;
let asked = 0;

beforeAll(async () => {
  engine = createEngine();
  await engine.load('mlp', mlp, { inline: 'never', batching: { maxBatch: 8 } });
  app = createServer(engine);
  app.addHook('preHandler', (_request, _reply, done) => {
    asked++;
    done();
  });
  url = await app.listen({ host: '127.0.0.1', port: 0 });
});
afterAll(async () => {
  await app.close();
  await engine.close();
});

interface Answer {
  error?: string;
  requests: { completed: number; failed: number };
  inferences: number;
  executions: number;
  stages: { queueUs: number; runUs: number };
  batches: { rows: number; runs: number }[];
  allocations: { count: number; bytesPerRun: number; peakBytes: number; dropped: number };
  memory: { rss: number };
  cpu: number;
  eventLoop: number;
  cost: string;
}

async function watch(query: string, headers = {}): Promise<{ status: number; json: Answer }> {
  const answer = await fetch(`${url}/v2/models/mlp/profile${query}`, { method: 'POST', headers });
  return { status: answer.status, json: (await answer.json()) as Answer };
}

/** Waits until the server has begun to watch. */
async function begun(before: number): Promise<void> {
  await until(() => asked > before);
  await turn();
}

const x = { dtype: 'float32', shape: [1, 784], data: new Float32Array(784) } as const;

it('says what the model did meanwhile, and nothing of before', async () => {
  await Promise.all(Array.from({ length: 20 }, () => engine.infer('mlp', { x })));
  const before = asked;
  const watching = watch('?seconds=2');
  await begun(before);
  for (let i = 0; i < 10; i++) {
    await Promise.all(Array.from({ length: 16 }, () => engine.infer('mlp', { x })));
  }
  const { status, json } = await watching;
  expect(status).toBe(200);
  expect(json.requests).toMatchObject({ completed: 160, failed: 0 });
  expect(json.inferences).toBe(160);
  expect(json.batches.reduce((sum, { rows, runs }) => sum + rows * runs, 0)).toBe(160);
  expect(json.batches.reduce((sum, { runs }) => sum + runs, 0)).toBe(json.executions);
  expect(json.executions).toBeLessThan(160);
  expect(json.stages.runUs).toBeGreaterThan(0);
  expect(json.allocations.dropped).toBe(0);
  expect(json.memory.rss).toBeGreaterThan(10e6);
  expect(json.cpu).toBeGreaterThan(0);
  expect(json.cost).toContain('ns for each');
});

it('one at a time, for a sensible time, of a model that is there, by who may', async () => {
  const before = asked;
  const first = watch('?seconds=2');
  await begun(before);
  expect(await watch('?seconds=0.1')).toMatchObject({
    status: 409,
    json: { error: expect.stringContaining('one at a time') as string },
  });
  expect((await first).status).toBe(200);
  for (const seconds of ['0', '61', 'x']) {
    expect((await watch(`?seconds=${seconds}`)).status).toBe(400);
  }
  expect((await watch('?seconds=1', { origin: 'http://elsewhere.example' })).status).toBe(403);
  const missing = await fetch(`${url}/v2/models/nosuch/profile`, { method: 'POST' });
  expect(missing.status).toBe(404);
});

it('ends when the client goes, and the next may begin', async () => {
  const before = asked;
  const gone = new AbortController();
  const watching = fetch(`${url}/v2/models/mlp/profile?seconds=30`, {
    method: 'POST',
    signal: gone.signal,
  });
  await begun(before);
  gone.abort();
  await expect(watching).rejects.toThrow();
  await until(async () => (await watch('?seconds=0.05')).status === 200);
});
