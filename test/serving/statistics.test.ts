// Statistics are of rows, wherever a request ran and however it came.
import { createEngine, type Engine, type ModelServable } from 'tercel';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { identity } from '../support/models.js';
import { Transports, type Ask } from '../support/transports.js';

/** A clock that is cheap to read is a few milliseconds behind. */
const COARSE_MS = 12;

const inputs: Ask['inputs'] = {
  x: { dtype: 'float32', shape: [5], data: new Float32Array(5).fill(1) },
};

let engine: Engine;
let transports: Transports;
beforeAll(async () => {
  engine = createEngine();
  // Of one dimension, so that generate, which has no shapes, can ask for a batch.
  const model = identity(1, ['n']);
  const options = { warmUp: false } as const;
  const batching = { maxBatch: 8 };
  await engine.load('inline', model, { ...options, batching, inline: 'always' });
  await engine.load('lane', model, { ...options, batching, inline: 'never' });
  await engine.load('alone', model, { ...options, batching: { maxBatch: 1 }, inline: 'never' });
  transports = await Transports.open(engine);
});
afterAll(async () => {
  await transports.close();
  await engine.close();
});

interface Stats {
  last_inference: number;
  inference_count: number;
  execution_count: number;
  inference_stats: { success: { count: number; ns: number } };
  batch_stats: { batch_size: number; compute_infer: { count: number; ns: number } }[];
}

async function statsOf(model: string): Promise<Stats> {
  const response = await fetch(`http://127.0.0.1:${transports.port}/v2/models/${model}/stats`);
  return ((await response.json()) as { model_stats: [Stats] }).model_stats[0];
}

describe.each(['inline', 'lane', 'alone'])('a batch of 5 that runs %s', (model) => {
  it('counts 5 by every transport', async () => {
    expect((await statsOf(model)).last_inference).toBe(0);
    let requests = 0;
    for (const { name, ask } of transports.list) {
      const before = Date.now();
      expect((await ask({ model, inputs })).words).toBe('');
      requests++;
      const stats = await statsOf(model);
      expect([name, stats]).toMatchObject([
        name,
        {
          inference_count: 5 * requests,
          execution_count: requests,
          inference_stats: { success: { count: requests } },
          batch_stats: [{ batch_size: 5, compute_infer: { count: requests } }],
        },
      ]);
      expect(stats.batch_stats[0]!.compute_infer.ns).toBeGreaterThan(0);
      expect(stats.inference_stats.success.ns).toBeGreaterThan(0);
      expect(Number.isInteger(stats.last_inference)).toBe(true);
      expect(stats.last_inference).toBeGreaterThanOrEqual(before - COARSE_MS);
      expect(stats.last_inference).toBeLessThanOrEqual(Date.now() + 1);
    }
  });
});

it('runs on the calling thread count too, and sizes apart', async () => {
  const { model } = await engine.load('here', identity(1, ['n', 2]), { warmUp: false });
  const x = (rows: number) => ({
    x: { dtype: 'float32' as const, shape: [rows, 2], data: new Float32Array(rows * 2) },
  });
  for (const rows of [5, 1, 5, 300]) model.runSync(x(rows));
  const binding = model.bind({ x: [5, 2] });
  const before = Date.now();
  binding.runSync();
  expect(model.stats()).toMatchObject({ rows: 316, runs: 5, runsInline: 5, executions: 5 });
  expect(model.stats().batches.map(({ rows, runs }) => [rows, runs])).toEqual([
    [1, 1],
    [5, 3],
    [300, 1],
  ]);
  expect(model.stats().lastMs).toBeGreaterThanOrEqual(before - COARSE_MS);
  await binding.run();
  expect(model.stats()).toMatchObject({ rows: 321, runs: 6 });
  binding.close();
  expect((engine.find('here') as ModelServable).stats()).toMatchObject({
    inferences: 321,
    success: { count: 6 },
  });
});

it('a model without rows counts its requests', async () => {
  const { model } = await engine.load('fixed', identity(1, [4, 2]), { warmUp: false });
  const x = { dtype: 'float32' as const, shape: [4, 2], data: new Float32Array(8) };
  model.runSync({ x });
  await model.run({ x });
  expect(model.stats()).toMatchObject({ rows: 2, runs: 2 });
  expect(model.stats().batches.map(({ rows, runs }) => [rows, runs])).toEqual([[1, 2]]);
});
