// gRPC: what must not take long.
import { describe, expect, it } from 'vitest';
import { echo, frame, served } from '../../support/grpc.js';

const LIMIT = 1_000_000;

const to = served(LIMIT);

describe('ModelInfer', () => {
  it('refuses messages of more entries than anybody means, at once', async () => {
    for (const entry of ['2a00', '3a00', '32030a0179']) {
      const message = Buffer.from(entry.repeat(150_000), 'hex');
      const start = performance.now();
      const answer = await to.peer.raw([frame(message)]);
      expect([answer.code, answer.message]).toEqual([
        '3',
        expect.stringContaining('more than 4096'),
      ]);
      expect(performance.now() - start).toBeLessThan(2000);
    }
  });

  it('finds the highest of many quickly', async () => {
    const count = 200_000;
    const many = echo(Array.from({ length: count }, (_, i) => i));
    const start = performance.now();
    const answer = await to.peer.call('ModelInfer', {
      ...many,
      outputs: [{ name: 'y', parameters: { classification: { int64_param: 10_000 } } }],
    });
    const [bytes] = answer['raw_output_contents'] as [Buffer];
    expect(bytes.subarray(4, 4 + bytes.readUInt32LE(0)).toString()).toBe('199999.000000:199999');
    expect(performance.now() - start).toBeLessThan(3000);
  });
});
