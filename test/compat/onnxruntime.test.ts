// Code written for onnxruntime-common runs on Tercel by changing one import.
import { readFileSync } from 'node:fs';
import { InferenceSession, stats, Tensor } from 'tercel/onnxruntime';
import ort from 'onnxruntime-node';
import { afterEach, describe, expect, it } from 'vitest';
import { benchModel } from '../../models/generate.js';
import { identity } from '../support/models.js';

const mlp = benchModel('mlp');
const x = new Tensor(
  'float32',
  Float32Array.from({ length: 784 }, (_, i) => i / 784),
  [1, 784],
);
afterEach(() => expect(stats().models).toEqual([]));

/** The same program for either library. */
async function program(library: {
  InferenceSession: typeof ort.InferenceSession;
  Tensor: typeof ort.Tensor;
}): Promise<unknown> {
  const session = await library.InferenceSession.create(mlp, {
    executionProviders: ['cpu'],
    graphOptimizationLevel: 'all',
    intraOpNumThreads: 1,
    logSeverityLevel: 4,
  });
  const feeds = {
    [session.inputNames[0]!]: new library.Tensor('float32', x.data, [1, 784]),
  };
  const results = await session.run(feeds);
  const only = await session.run(feeds, ['y']);
  const answer = {
    inputs: session.inputNames,
    outputs: session.outputNames,
    metadata: session.inputMetadata,
    type: results['y']!.type,
    dims: results['y']!.dims,
    data: Array.from(results['y']!.data as Float32Array),
    only: Array.from(only['y']!.data as Float32Array),
    size: results['y']!.size,
    location: results['y']!.location,
  };
  await session.release();
  return answer;
}

it('gives what onnxruntime-node gives', async () => {
  const expected = await program(ort);
  const before = stats().models.length;
  const got = await program({ InferenceSession, Tensor });
  expect(before).toBe(0);
  expect(got).toEqual(expected);
});

describe('sessions', () => {
  it('come from a path, bytes, an ArrayBuffer, or a part of one', async () => {
    const bytes = new Uint8Array(readFileSync(mlp));
    const padded = new Uint8Array(bytes.length + 20);
    padded.set(bytes, 10);
    for (const create of [
      () => InferenceSession.create(mlp),
      () => InferenceSession.create(bytes),
      () => InferenceSession.create(bytes.buffer),
      () => InferenceSession.create(padded.buffer, 10, bytes.length, { intraOpNumThreads: 1 }),
    ]) {
      const session = await create();
      expect(session).toBeInstanceOf(InferenceSession);
      expect(stats().models.length).toBe(1);
      expect((await session.run({ x }))['y']!.dims).toEqual([1, 10]);
      await session.release();
    }
  });

  it('write into given tensors', async () => {
    const session = await InferenceSession.create(mlp);
    const y = new Tensor('float32', new Float32Array(10), [1, 10]);
    const results = await session.run({ x }, { y });
    expect(results['y']).toBe(y);
    expect(y.data.some((value) => value !== 0)).toBe(true);
    await session.release();
  });

  it('carry strings, booleans and big integers', async () => {
    for (const [code, tensor] of [
      [8, new Tensor('string', ['a', 'b\0c'], [2])],
      [9, new Tensor('bool', [true, false], [2])],
      [7, new Tensor('int64', [1n, -5n], [2])],
    ] as const) {
      const session = await InferenceSession.create(identity(code));
      const y = (await session.run({ x: tensor }))['y']!;
      expect([y.type, y.dims, Array.from(y.data as never)]).toEqual([
        tensor.type,
        [2],
        Array.from(tensor.data as never),
      ]);
      await session.release();
    }
  });

  it('fail as they should', async () => {
    await expect(InferenceSession.create('/nope.onnx')).rejects.toThrow('/nope.onnx');
    await expect(InferenceSession.create(mlp, { executionProviders: ['cuda'] })).rejects.toThrow(
      'provider "cuda" cannot be loaded',
    );
    const session = await InferenceSession.create(mlp);
    await expect(session.run({})).rejects.toThrow("input 'x' is missing in 'feeds'");
    await session.release();
  });
});
