// Bad input names what was wrong, what was expected and what came; nothing is lost.
import {
  allocate,
  InvalidInputError,
  loadModel,
  OverloadError,
  RunError,
  stats,
  type Model,
  type Tensor,
} from 'tercel';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { benchModel } from '../../models/generate.js';
import { identity, reduce } from '../support/models.js';
import { collectGarbage } from '../support/garbage.js';

const good = { dtype: 'float32', shape: [1, 784], data: new Float32Array(784) } as const;
let model: Model;
let hopping: Model;
beforeAll(async () => {
  model = await loadModel(benchModel('mlp'));
  hopping = await loadModel(benchModel('mlp'), { inline: 'never' });
});
afterAll(() => Promise.all([model.close(), hopping.close()]));

const detached = new Float32Array(784);
structuredClone(detached, { transfer: [detached.buffer] });

const cases: [string, unknown, string][] = [
  ['no input', {}, 'input "x" is missing; the model takes 1 input: "x"'],
  ['a wrong name', { z: good }, 'input "z" does not exist; the model has "x"'],
  ['one name too many', { x: good, z: good }, 'input "z" does not exist; the model has "x"'],
  [
    'a wrong dtype',
    { x: { dtype: 'int64', shape: [1, 784], data: new BigInt64Array(784) } },
    'input "x": expected float32[batch,784], got int64[1,784]',
  ],
  [
    'an unknown dtype',
    { x: { ...good, dtype: 'float8' } },
    'input "x": a tensor needs dtype, shape and data; got dtype "float8"',
  ],
  ['no tensor', { x: 5 }, 'input "x": a tensor needs dtype, shape and data; got dtype undefined'],
  ['a sequence', { x: [good] }, 'input "x": expected float32[batch,784], got a sequence'],
  [
    'a wrong shape',
    { x: { ...good, shape: [1, 783] } },
    'input "x": expected float32[batch,784], got float32[1,783]',
  ],
  [
    'a wrong rank',
    { x: { ...good, shape: [784] } },
    'input "x": expected float32[batch,784], got float32[784]',
  ],
  [
    'a negative dimension',
    { x: { ...good, shape: [-1, 784] } },
    'a dimension must be a whole number of 0 or more, got -1',
  ],
  [
    'half a dimension',
    { x: { ...good, shape: [0.5, 784] } },
    'a dimension must be a whole number of 0 or more, got 0.5',
  ],
  [
    'a dimension that is none',
    { x: { ...good, shape: ['a', 784] } },
    'a dimension must be a whole number',
  ],
  [
    'a shape that overflows',
    { x: { ...good, shape: [2 ** 50, 784] } },
    'input "x": shape [1125899906842624,784] is too large',
  ],
  [
    'too many dimensions',
    { x: { ...good, shape: Array(33).fill(1) } },
    'input "x": 33 dimensions are more than 32',
  ],
  [
    'no shape',
    { x: { dtype: 'float32', data: good.data } },
    'input "x": shape must be an array of numbers',
  ],
  [
    'a wrong array',
    { x: { ...good, data: new Float64Array(784) } },
    'input "x": float32 data must be a Float32Array, got a Float64Array',
  ],
  [
    'plain numbers',
    { x: { ...good, data: Array(784).fill(0) } },
    'input "x": float32 data must be a Float32Array',
  ],
  [
    'no data',
    { x: { dtype: 'float32', shape: [1, 784] } },
    'input "x": float32 data must be a Float32Array',
  ],
  [
    'too little data',
    { x: { ...good, data: new Float32Array(783) } },
    'input "x": shape [1,784] holds 784 elements, data has 783',
  ],
  [
    'a detached buffer',
    { x: { ...good, data: detached } },
    'input "x": shape [1,784] holds 784 elements, data has 0 (is its buffer detached?)',
  ],
];

it.each(cases)('%s', async (_name, inputs, message) => {
  await collectGarbage();
  const before = stats().leases;
  expect(() => model.runSync(inputs as never)).toThrow(InvalidInputError);
  expect(() => model.runSync(inputs as never)).toThrow(message);
  await expect(model.run(inputs as never)).rejects.toThrow(message);
  await expect(hopping.run(inputs as never)).rejects.toThrow(InvalidInputError);
  expect(stats().leases).toBe(before);
  // And the model is as good as before.
  expect((await model.run({ x: good }))['y']!.shape).toEqual([1, 10]);
});

describe('strings', () => {
  it('must be strings', async () => {
    await using strings = await loadModel(identity(8));
    const tensor = (data: unknown): Tensor => ({ dtype: 'string', shape: [2], data }) as Tensor;
    expect(() => strings.runSync({ x: tensor(['a', 5]) })).toThrow(
      'input "x": string data must hold strings only; element 1 is a number',
    );
    expect(() => strings.runSync({ x: tensor('ab') })).toThrow('must be an array of strings');
    expect(() => strings.runSync({ x: tensor(['a']) })).toThrow(
      'shape [2] holds 2 elements, data has 1',
    );
  });
});

it('an output asked for twice', async () => {
  for (const run of [model, hopping]) {
    await expect(run.run({ x: good }, { outputs: ['y', 'y'] })).rejects.toThrow(
      'output "y" is asked for twice',
    );
  }
  expect(() => model.runSync({ x: good }, { outputs: ['y', 'y'] })).toThrow(InvalidInputError);
});

describe('bind', () => {
  it('names what is wrong with shapes', () => {
    expect(() => model.bind()).toThrow('bind: input "x" is float32[batch,784]: give its shape');
    expect(() => model.bind({ z: [1] })).toThrow(
      'bind: "z" is no input or output; the model has "x", "y"',
    );
    expect(() => model.bind({ x: [1, 783] })).toThrow(
      'input "x": expected float32[batch,784], got float32[1,783]',
    );
    expect(() => model.bind({ x: [-1, 784] })).toThrow(InvalidInputError);
    expect(() => model.bind({ x: [2 ** 45, 784] })).toThrow(
      /no memory for input "x"|not possible|too large/,
    );
    expect(() => model.bind({ x: 5 as never })).toThrow(
      'the shape of "x" must be an array of numbers',
    );
  });

  it('refuses a run whose output has another shape than bound', () => {
    const binding = model.bind({ x: [2, 784], y: [1, 10] });
    expect(() => binding.runSync()).toThrow(/shape/);
    binding.close();
  });
});

describe('allocate', () => {
  it('gives cleared memory of the shape', () => {
    const t = allocate('int64', [2, 3]);
    expect(t).toEqual({ dtype: 'int64', shape: [2, 3], data: new BigInt64Array(6) });
    expect(allocate('float32', []).data.length).toBe(1);
    expect(allocate('float32', [0, 5]).data.length).toBe(0);
  });

  it('is refused sizes that no machine has, however they are asked for', async () => {
    allocate('uint8', [100]);
    for (const bytes of [5e9, 2 ** 43 + 4096, 2 ** 44 + 4096, 2 ** 52]) {
      expect(() => allocate('uint8', [bytes])).toThrow(OverloadError);
    }
    // An empty input with a huge dimension that the output's shape follows.
    const huge: Tensor = { dtype: 'float32', shape: [1e10, 0], data: new Float32Array(0) };
    await using wide = await loadModel(reduce());
    await using wideHopping = await loadModel(reduce(), { inline: 'never' });
    expect(() => wide.runSync({ x: huge })).toThrow(RunError);
    await expect(wideHopping.run({ x: huge })).rejects.toThrow(RunError);
    await using strings = await loadModel(identity(8));
    expect(() => strings.bind({ x: [2 ** 50] })).toThrow(OverloadError);
  });

  it('names what cannot be', () => {
    expect(() => allocate('string' as never, [1])).toThrow('dtype "string" has no fixed size');
    expect(() => allocate('float32', [-1])).toThrow(InvalidInputError);
    expect(() => allocate('float32', [2 ** 52])).toThrow(/no memory for/);
  });
});
