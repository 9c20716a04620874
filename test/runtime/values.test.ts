// What a model can take and give: every dtype, scalars, empty tensors, sequences, maps, optionals.
import {
  allocate,
  InvalidInputError,
  loadModel,
  type DType,
  type Tensor,
  type Value,
} from 'tercel';
import { describe, expect, it } from 'vitest';
import { encodeModel, FLOAT } from '../../models/onnx.js';
import {
  identity,
  liar,
  optionalInput,
  optionalOutput,
  sequences,
  zipMap,
} from '../support/models.js';

const cases: [DType, number, Tensor['data']][] = [
  ['float32', 1, new Float32Array([1.5, -0, NaN])],
  ['uint8', 2, new Uint8Array([0, 127, 255])],
  ['int8', 3, new Int8Array([-128, 0, 127])],
  ['uint16', 4, new Uint16Array([0, 1, 65535])],
  ['int16', 5, new Int16Array([-32768, 0, 32767])],
  ['int32', 6, new Int32Array([-(2 ** 31), 0, 2 ** 31 - 1])],
  ['int64', 7, new BigInt64Array([-(2n ** 63n), 0n, 2n ** 63n - 1n])],
  ['string', 8, ['', 'grüße 🦅', 'with\0nul']],
  ['bool', 9, new Uint8Array([0, 1, 1])],
  ['float16', 10, new Uint16Array([0x3c00, 0x8000, 0x7c00])],
  ['float64', 11, new Float64Array([Math.PI, -Infinity, 5e-324])],
  ['uint32', 12, new Uint32Array([0, 1, 2 ** 32 - 1])],
  ['uint64', 13, new BigUint64Array([0n, 1n, 2n ** 64n - 1n])],
  ['bfloat16', 16, new Uint16Array([0x3f80, 0x8000, 0x7f80])],
];

function bits(data: Tensor['data']): unknown {
  if (Array.isArray(data)) return data;
  return [...new Uint8Array(data.buffer as ArrayBuffer, data.byteOffset, data.byteLength)];
}

describe.each(cases)('%s', (dtype, code, data) => {
  const tensor = { dtype, shape: [3], data } as Tensor;

  it('comes back as it went, by every path', async () => {
    await using model = await loadModel(identity(code));
    await using hopping = await loadModel(identity(code), { inline: 'never' });
    for (const y of [
      model.runSync({ x: tensor })['y']!,
      (await model.run({ x: tensor }))['y']!,
      (await hopping.run({ x: tensor }))['y']!,
    ]) {
      expect(y.dtype).toBe(dtype);
      expect(y.shape).toEqual([3]);
      expect(bits(y.data)).toEqual(bits(data));
    }
    expect(model.inputs[0]).toEqual({ name: 'x', kind: 'tensor', dtype, shape: ['n'] });
    const binding = model.bind({ x: [3] });
    if (Array.isArray(data))
      data.forEach((s, i) => ((binding.inputs['x']!.data as string[])[i] = s));
    else {
      // By bytes: a binding's float16 is a Float16Array where Node has it.
      const into = binding.inputs['x']!.data as Uint8Array;
      new Uint8Array(into.buffer, into.byteOffset, into.byteLength).set(bits(data) as number[]);
    }
    binding.runSync();
    expect(bits(binding.outputs['y']!.data)).toEqual(bits(data));
  });

  it('takes scalars, empty tensors and large ones', async () => {
    await using scalar = await loadModel(identity(code, []));
    const one = (
      Array.isArray(data) ? data.slice(1, 2) : (data as Uint8Array).subarray(1, 2)
    ) as Tensor['data'];
    const y = scalar.runSync({ x: { dtype, shape: [], data: one } })['y']!;
    expect(y.shape).toEqual([]);
    expect(bits(y.data)).toEqual(bits(one));

    await using model = await loadModel(identity(code, ['n', 'm']), { inline: 'never' });
    const none = (Array.isArray(data) ? [] : (data as Uint8Array).subarray(0, 0)) as Tensor['data'];
    for (const shape of [
      [0, 5],
      [3, 0],
    ]) {
      const x = { dtype, shape, data: none } as Tensor;
      for (const empty of [model.runSync({ x })['y']!, (await model.run({ x }))['y']!]) {
        expect(empty.shape).toEqual(shape);
        expect(empty.data.length).toBe(0);
      }
    }
    const many = 3000;
    const large = Array.isArray(data)
      ? Array.from({ length: many }, (_, i) => `s${i}`)
      : new (data.constructor as Uint8ArrayConstructor)(many).fill(data[1] as number);
    const x = { dtype, shape: [30, 100], data: large } as Tensor;
    for (const back of [model.runSync({ x })['y']!, (await model.run({ x }))['y']!]) {
      expect(back.shape).toEqual([30, 100]);
      expect(bits(back.data)).toEqual(bits(large as Tensor['data']));
    }
  });
});

it.runIf('Float16Array' in globalThis)('takes and gives Float16Array', async () => {
  const Float16 = (globalThis as unknown as { Float16Array: typeof Float32Array }).Float16Array;
  await using model = await loadModel(identity(10));
  await using hopping = await loadModel(identity(10), { inline: 'never' });
  const x = { dtype: 'float16', shape: [2], data: Float16.from([1.5, -2]) } as unknown as Tensor;
  for (const { y } of [model.runSync({ x }), await model.run({ x }), await hopping.run({ x })] as {
    y: Tensor;
  }[]) {
    expect(y.data).toBeInstanceOf(Float16);
    expect([...(y.data as Float32Array)]).toEqual([1.5, -2]);
  }
  const given = { dtype: 'float16', shape: [2], data: new Float16(2) } as unknown as Tensor;
  await hopping.run({ x }, { outputs: { y: given } });
  expect([...(given.data as Float32Array)]).toEqual([1.5, -2]);
});

describe('an output that is an input', () => {
  // ONNX Runtime hands out the input itself, and writes nothing to memory made for the output.
  const file = encodeModel({
    name: 'through',
    inputs: { x: { tensor: FLOAT, shape: ['n', 8] } },
    outputs: { x: { tensor: FLOAT, shape: ['n', 8] }, y: { tensor: FLOAT, shape: ['n', 8] } },
    nodes: [{ op: 'Relu', inputs: ['x'], outputs: ['y'] }],
  });
  const tensor = (value: number, n = 1): Tensor => ({
    dtype: 'float32',
    shape: [n, 8],
    data: new Float32Array(n * 8).fill(value),
  });

  it('has its values, each way', async () => {
    await using model = await loadModel(file, { inline: 'never' });
    for (const value of [1, 2, 3]) {
      const x = tensor(value);
      const given = (): Tensor => tensor(-1);
      for (const run of [
        () => model.runSync({ x }),
        () => model.run({ x }),
        () => model.run({ x }, { results: 'shared' }),
      ]) {
        const { x: through, y } = await run();
        expect(through!.data).toEqual(x.data);
        expect(y!.data).toEqual(x.data);
      }
      const outputs = { x: given(), y: given() };
      model.runSync({ x }, { outputs });
      expect(outputs.x.data).toEqual(x.data);
      const later = { x: given(), y: null };
      await model.run({ x }, { outputs: later });
      expect(later.x.data).toEqual(x.data);
    }
    expect(() =>
      model.runSync({ x: tensor(1, 2) }, { outputs: { x: tensor(0), y: null } }),
    ).toThrow(/output "x" is an input of another shape/);
    using bound = model.bind({ x: [1, 8] });
    (bound.inputs['x']!.data as Float32Array).fill(7);
    bound.runSync();
    expect(bound.outputs['x']!.data).toEqual(tensor(7).data);
    expect(bound.outputs['y']!.data).toEqual(tensor(7).data);
  });

  it('is each request’s own in a batch', async () => {
    await using model = await loadModel(file, { inline: 'never', batching: { maxBatch: 16 } });
    for (const results of ['own', 'shared'] as const) {
      const all = await Promise.all(
        Array.from({ length: 64 }, (_, i) => model.run({ x: tensor(i) }, { results })),
      );
      all.forEach(({ x }, i) => expect(x!.data).toEqual(tensor(i).data));
    }
  });
});

describe('given outputs', () => {
  it('are written in place and come back as themselves', async () => {
    await using model = await loadModel(identity(1));
    await using hopping = await loadModel(identity(1), { inline: 'never' });
    const x = { dtype: 'float32', shape: [20], data: new Float32Array(20).fill(7) } as const;
    for (const run of [
      (y: Tensor) => model.runSync({ x }, { outputs: { y } }),
      (y: Tensor) => model.run({ x }, { outputs: { y } }),
      (y: Tensor) => hopping.run({ x }, { outputs: { y } }),
    ]) {
      for (const y of [
        { dtype: 'float32', shape: [20], data: new Float32Array(20) },
        { dtype: 'float32', shape: [20], data: new Float32Array(new SharedArrayBuffer(80)) },
        allocate('float32', [20]),
      ] as Tensor[]) {
        const result = await run(y);
        expect(result['y']).toBe(y);
        expect([...(y.data as Float32Array)]).toEqual(Array(20).fill(7));
      }
    }
    await expect(
      hopping.run({ x }, { outputs: { y: { ...x, shape: [19], data: new Float32Array(19) } } }),
    ).rejects.toThrow(/does not fit the given tensor/);
  });

  it('may be some of them, by name', async () => {
    await using model = await loadModel(sequences());
    const s: Value = [{ dtype: 'float32', shape: [1], data: new Float32Array([1]) }];
    const extra: Value = { dtype: 'float32', shape: [1], data: new Float32Array([2]) };
    expect(Object.keys(model.runSync({ s, extra }, { outputs: ['length'] }))).toEqual(['length']);
    expect(() => model.runSync({ s, extra }, { outputs: ['nope'] })).toThrow(
      'output "nope" does not exist; the model has "longer", "length"',
    );
    expect(() => model.runSync({ s, extra }, { outputs: [] })).toThrow(InvalidInputError);
  });
});

describe('nested values', () => {
  const floats = (...values: number[]): Tensor => ({
    dtype: 'float32',
    shape: [values.length],
    data: Float32Array.from(values),
  });

  it('takes and gives sequences as arrays of tensors', async () => {
    await using model = await loadModel(sequences(), { inline: 'never' });
    expect(model.inputs[0]).toMatchObject({ kind: 'sequence', dtype: 'float32' });
    const inputs = { s: [floats(1), floats(2, 3)], extra: floats(4) };
    for (const result of [
      model.runSync<Record<string, Value>>(inputs),
      await model.run<Record<string, Value>>(inputs),
    ]) {
      const longer = result['longer'] as Tensor[];
      expect(longer.map((t) => [...(t.data as Float32Array)])).toEqual([[1], [2, 3], [4]]);
      expect((result['length'] as Tensor).data).toEqual(new BigInt64Array([3n]));
    }
    expect(() => model.runSync({ s: floats(1), extra: floats(4) })).toThrow(
      'input "s": expected sequence(float32), got float32[1]',
    );
    expect(() => model.runSync({ s: [null], extra: floats(4) })).toThrow(
      'input "s"[0]: a sequence holds tensors',
    );
    expect(() => model.bind()).toThrow('a binding holds tensors only');
  });

  it('gives maps as Map', async () => {
    await using model = await loadModel(zipMap());
    const result = model.runSync<{ maps: Map<string, number>[] }>({
      scores: { dtype: 'float32', shape: [2, 3], data: new Float32Array([1, 2, 3, 4, 5, 6]) },
    });
    expect(result.maps.map((map) => map.get('dog'))).toEqual([2, 5]);
    expect(result.maps[0]).toBeInstanceOf(Map);
  });

  it('gives null for an optional output without a value', async () => {
    await using full = await loadModel(optionalOutput(true));
    await using empty = await loadModel(optionalOutput(false));
    expect(full.runSync({ x: floats(5) })['y']).toEqual(floats(5));
    expect(empty.runSync<Record<string, Value>>({ x: floats(5) })['y']).toBeNull();
    expect((await empty.run<Record<string, Value>>({ x: floats(5) }))['y']).toBeNull();
  });

  it('takes an optional input', async () => {
    await using model = await loadModel(optionalInput());
    expect(model.runSync({ x: floats(5) })['y']).toEqual(floats(5));
  });
});

it('does not trust a wrong declaration of a shape', async () => {
  await using model = await loadModel(liar());
  await using hopping = await loadModel(liar(), { inline: 'never' });
  const x: Tensor = { dtype: 'float32', shape: [20], data: new Float32Array(20).fill(3) };
  for (let i = 0; i < 3; i++) {
    for (const y of [model.runSync({ x })['y']!, (await hopping.run({ x }))['y']!]) {
      expect(y.shape).toEqual([40]);
      expect([...(y.data as Float32Array)]).toEqual(Array(40).fill(3));
    }
  }
});

it('gives results that own their memory', async () => {
  await using model = await loadModel(identity(1));
  const run = (value: number): Float32Array =>
    model.runSync({ x: { dtype: 'float32', shape: [4], data: new Float32Array(4).fill(value) } })[
      'y'
    ]!.data as Float32Array;
  const first = run(1);
  const second = run(2);
  second[0] = 9;
  expect([...first]).toEqual([1, 1, 1, 1]);
  structuredClone(first, { transfer: [first.buffer as ArrayBuffer] });
  expect([...run(3)]).toEqual([3, 3, 3, 3]);
  expect([...second]).toEqual([9, 2, 2, 2]);
});
