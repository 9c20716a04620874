// The short form of what test/soak/ does at length.
import { expect, it } from 'vitest';
import { mutateModels } from '../soak/mutate.mjs';

it('lives through broken model files', async () => {
  const result = await mutateModels(120);
  expect(result).toMatchObject({ untyped: [], leases: 0, models: 0 });
  expect(result.refused).toBeGreaterThan(60);
});
