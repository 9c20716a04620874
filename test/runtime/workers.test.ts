// Worker threads: one session for all, and a worker may end at any moment.
import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { loadModel, stats } from 'tercel';
import { expect, it } from 'vitest';
import { benchModel } from '../../models/generate.js';
import { terminateOften } from '../soak/terminate.mjs';

const file = new URL('../support/worker.mjs', import.meta.url);

it('share one session and one copy of the weights', async () => {
  await using model = await loadModel(benchModel('mlp'));
  const before = stats().arena.leasedBytes;
  const workers = [1, 2, 3].map(
    () => new Worker(file, { workerData: { path: benchModel('mlp'), mode: 'once' } }),
  );
  const exits = workers.map((worker) => once(worker, 'exit'));
  const said = await Promise.all(workers.map(async (worker) => (await once(worker, 'message'))[0]));
  for (const answer of said) expect(answer).toEqual({ sessions: 1, outputs: ['y'] });
  for (const [code] of await Promise.all(exits)) expect(code).toBe(0);
  expect(stats().models.length).toBe(1);
  expect(stats().arena.leasedBytes - before).toBeLessThan(100_000);
  expect(model.closed).toBe(false);
});

it('may be terminated in the middle of runs', async () => {
  const result = await terminateOften(24);
  expect(result).toMatchObject({ terminated: 24, leases: 0, models: 0 });
});
