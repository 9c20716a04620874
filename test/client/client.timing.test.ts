// The client: how soon it gives up.
import { createEngine, createServer } from 'tercel';
import { Client, TimeoutError } from 'tercel/client';
import { expect, it } from 'vitest';
import { slow } from '../support/models.js';

it('gives up in time', async () => {
  await using engine = createEngine();
  await engine.load('slow', slow(), { lanes: 1, inline: 'never' });
  const app = createServer(engine);
  const url = await app.listen({ host: '127.0.0.1', port: 0 });
  await using client = new Client(url, { timeoutMs: 100 });
  const x = { dtype: 'float32', shape: [64, 64], data: new Float32Array(4096) } as const;
  const rounds = { dtype: 'int64', shape: [], data: BigInt64Array.of(5_000_000n) } as const;
  const start = performance.now();
  await expect(client.infer('slow', { x, rounds })).rejects.toBeInstanceOf(TimeoutError);
  expect(performance.now() - start).toBeLessThan(2000);
  await app.close();
});
