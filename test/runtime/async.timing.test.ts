// run(): how long it may keep the calling thread.
import { setImmediate as turn } from 'node:timers/promises';
import { loadModel, type Tensor } from 'tercel';
import { expect, it } from 'vitest';
import { identity, slow } from '../support/models.js';

const x: Tensor = { dtype: 'float32', shape: [64, 64], data: new Float32Array(4096).fill(0.01) };

/** Inputs for a run of some minute; it ends early only when it is terminated. */
const forever: Record<string, Tensor> = {
  x,
  rounds: { dtype: 'int64', shape: [], data: BigInt64Array.of(7_800_000n) },
};

it('never starves the event loop, even when every run is inline', async () => {
  await using model = await loadModel(identity(1), { inline: 'always' });
  const input = { x: { dtype: 'float32', shape: [4], data: new Float32Array(4) } } as const;
  for (let i = 0; i < 100; i++) model.runSync(input);
  let turns = 0;
  const timer = setInterval(() => turns++, 1);
  for (const end = performance.now() + 200; performance.now() < end;) await model.run(input);
  clearInterval(timer);
  expect(turns).toBeGreaterThan(20);
});

it('returns at once while the run goes on', async () => {
  await using model = await loadModel(slow(), { lanes: 1 });
  const stop = new AbortController();
  const start = performance.now();
  const run = model.run(forever, { signal: stop.signal });
  expect(performance.now() - start).toBeLessThan(50);
  for (let i = 0; i < 10; i++) await turn();
  stop.abort();
  await expect(run).rejects.toThrow();
});
