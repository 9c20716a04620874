// Leases of runs, in a process that has no others: what garbage still held would go at any time.
import { loadModel, stats } from 'tercel';
import { expect, it } from 'vitest';
import { identity } from '../support/models.js';

it('gives back every lease', async () => {
  const before = stats().leases;
  const model = await loadModel(identity(1), { inline: 'never' });
  const input = { x: { dtype: 'float32', shape: [4], data: new Float32Array(4) } } as const;
  await Promise.all(Array.from({ length: 500 }, () => model.run(input)));
  // A few are kept for the next runs, until the model is closed.
  expect(stats().leases - before).toBeLessThanOrEqual(64);
  await model.close();
  expect(stats().leases).toBe(before);
  expect(stats().models).toEqual([]);
});
