// Models on a GPU, as far as they can be tested without one: the CPU's session is run as if it were on
// the GPU of a CUDA runtime that has the host's memory. What a GPU computes is another matter.
import {
  configure,
  createEngine,
  DeviceTensor,
  InvalidInputError,
  loadModel,
  stats,
  trim,
  type DeviceStats,
  type GpuOptions,
  type Tensor,
} from 'tercel';
import { beforeAll, describe, expect, it } from 'vitest';
import { benchModel } from '../../models/generate.js';
import { encodeModel, FLOAT } from '../../models/onnx.js';
import { fakeCuda, fakeCudaFolder, inProcess } from '../support/process.js';

const tiny = benchModel('tiny');
const mlp = benchModel('mlp');
/** As on a GPU: for tests only, and not among the declared options. */
const onGpu = (gpu: GpuOptions = {}): { gpu: GpuOptions } => ({
  gpu: { ...gpu, standIn: true } as GpuOptions,
});
const rows = (...values: number[]): Tensor => ({
  dtype: 'float32',
  shape: [values.length, 4],
  data: Float32Array.from(values.flatMap((value) => [value, 0, 0, 0])),
});
const device = (): DeviceStats => stats().devices[0]!;
/** What the tiny model adds to the first column. */
let weight: number;
const plusWeight = (value: number): number => Math.fround(value + weight);

describe.skipIf(process.platform !== 'linux')('a model on a GPU', () => {
  beforeAll(async () => {
    configure({ arena: { pin: fakeCuda } });
    await using model = await loadModel(tiny);
    weight = (model.runSync({ x: rows(0) })['y']!.data as Float32Array)[0]!;
    // The GPU is there from the first model on that runs on it.
    await (await loadModel(tiny, onGpu())).close();
  });

  it('gives what it gives elsewhere, and says what was copied', async () => {
    await using model = await loadModel(tiny, onGpu());
    expect(model.onGpu).toBe(true);
    const first = (await model.run({ x: rows(3) }))['y'] as Tensor<'float32'>;
    expect(first.data[0]).toBe(plusWeight(3));
    const before = device();
    const results = await Promise.all(
      Array.from({ length: 50 }, (_, i) => model.run({ x: rows(i, i + 1) })),
    );
    results.forEach(({ y }, i) => {
      expect((y!.data as Float32Array)[4]).toBe(plusWeight(i + 1));
    });
    const synchronous = model.runSync({ x: rows(7) })['y'] as Tensor<'float32'>;
    expect(synchronous.data[0]).toBe(plusWeight(7));
    const after = device();
    expect(after).toMatchObject({ device: 0, capability: '8.6', pciBusId: '0000:01:00.0' });
    expect(after.totalBytes).toBe(8 * 2 ** 30);
    expect(after.runs - before.runs).toBe(51);
    expect(after.copiesIn.bytes - before.copiesIn.bytes).toBe(50 * 32 + 16);
    expect(after.copiesOut.bytes - before.copiesOut.bytes).toBe(50 * 32 + 16);
    expect(after.copiesIn.us).toBeGreaterThan(before.copiesIn.us);
    expect(model.stats()).toMatchObject({ lanes: 2, device: 0 });
  });

  it('is warmed on each lane, with a graph for each size of batch', async () => {
    await using engine = createEngine();
    const before = device();
    const { model } = await engine.load('tiny', tiny, {
      batching: { maxBatch: 8 },
      ...onGpu({ graphs: true, slots: 3 }),
    });
    // 1, 2, 4 and 8 rows on three lanes.
    expect(device().graphRuns - before.graphRuns).toBeGreaterThanOrEqual(12);
    expect(model.stats().lanes).toBe(3);
    const warmed = device();
    const results = await Promise.all(
      Array.from({ length: 200 }, (_, i) => engine.infer('tiny', { x: rows(i) })),
    );
    results.forEach(({ y }, i) => expect((y!.data as Float32Array)[0]).toBe(plusWeight(i)));
    const after = device();
    expect(after.graphRuns - warmed.graphRuns).toBe(after.runs - warmed.runs);
    expect(after.runs - warmed.runs).toBeLessThan(200);
  });

  it('is warmed by several loads at once', async () => {
    const models = await Promise.all(
      Array.from({ length: 4 }, () => loadModel(mlp, { batching: 'auto', ...onGpu() })),
    );
    const x: Tensor = { dtype: 'float32', shape: [1, 784], data: new Float32Array(784) };
    for (const model of models) expect((await model.run({ x }))['y']!.shape).toEqual([1, 10]);
    for (const model of models) await model.close();
  });

  it('is warmed where its outputs are declared wrongly', async () => {
    await using engine = createEngine();
    const wrong = encodeModel({
      name: 'wrong',
      inputs: { x: { tensor: FLOAT, shape: ['n', 4] } },
      outputs: { y: { tensor: FLOAT, shape: ['n', 4] } },
      nodes: [{ op: 'Transpose', inputs: ['x'], outputs: ['y'], attributes: { perm: [1, 0] } }],
    });
    await engine.load('wrong', wrong, { warmUp: [{ batch: 2 }], ...onGpu() });
    expect((await engine.infer('wrong', { x: rows(1, 2) }))['y']!.shape).toEqual([4, 2]);
  });

  it('measures whether batches pay', async () => {
    await using engine = createEngine();
    const { model } = await engine.load('mlp', mlp, onGpu());
    expect(model.stats().lanes).toBe(2);
    const x: Tensor = { dtype: 'float32', shape: [1, 784], data: new Float32Array(784) };
    const expected = model.runSync({ x })['y']!.data as Float32Array;
    const results = await Promise.all(Array.from({ length: 64 }, () => engine.infer('mlp', { x })));
    for (const { y } of results) {
      (y!.data as Float32Array).forEach((value, i) => expect(value).toBeCloseTo(expected[i]!, 4));
    }
  });

  it('keeps what a binding asks for on the device, and hands it on', async () => {
    await using model = await loadModel(tiny, onGpu());
    using one = model.bind({ x: [2, 4] }, { onDevice: ['y'] });
    const y = one.onDevice['y']!;
    expect(y).toBeInstanceOf(DeviceTensor);
    expect(one.outputs['y']).toBeUndefined();
    expect({ dtype: y.dtype, shape: y.shape, device: y.device }).toEqual({
      dtype: 'float32',
      shape: [2, 4],
      device: 0,
    });
    (one.inputs['x']!.data as Float32Array)[4] = 5;
    const copied = device().copiesOut.bytes;
    one.runSync();
    await one.run();
    // The second model reads where the first one wrote.
    using two = model.bind({ x: y });
    two.runSync();
    expect(device().copiesOut.bytes - copied).toBe(32);
    expect((two.outputs['y']!.data as Float32Array)[4]).toBe(plusWeight(plusWeight(5)));
    expect(((await y.read()) as Tensor<'float32'>).data[4]).toBe(plusWeight(5));
    await y.write(Float32Array.from([1, 0, 0, 0, 2, 0, 0, 0]));
    two.runSync();
    expect((two.outputs['y']!.data as Float32Array)[4]).toBe(plusWeight(2));
    y.writeSync(new Float32Array(8).fill(3));
    const read = new Float32Array(8);
    y.readSync(read);
    expect(read).toEqual(new Float32Array(8).fill(3));
    // Shared between threads, as elsewhere.
    const shared = new Float32Array(new SharedArrayBuffer(32)).fill(4);
    y.writeSync(shared);
    await y.write(shared);
    y.readSync(shared.fill(0));
    expect(shared).toEqual(new Float32Array(new SharedArrayBuffer(32)).fill(4));
    await expect(y.write(new Float32Array(7))).rejects.toThrow(
      'write: expected a typed array of 32 bytes (float32[2,4]), got 28 bytes',
    );
    expect(() => y.readSync('x' as unknown as Float32Array)).toThrow(InvalidInputError);
  });

  it('leaves an output that is an input where it is', async () => {
    const through = encodeModel({
      name: 'through',
      inputs: { x: { tensor: FLOAT, shape: ['n', 4] } },
      outputs: {
        x: { tensor: FLOAT, shape: ['n', 4] },
        y: { tensor: FLOAT, shape: ['n', 4] },
      },
      nodes: [{ op: 'Relu', inputs: ['x'], outputs: ['y'] }],
    });
    await using model = await loadModel(through, onGpu());
    for (const { x, y } of [await model.run({ x: rows(5) }), model.runSync({ x: rows(5) })]) {
      expect([x!.data, y!.data]).toEqual([rows(5).data, rows(5).data]);
    }
    using bound = model.bind({ x: [1, 4] });
    (bound.inputs['x']!.data as Float32Array).set([7, 0, 0, 0]);
    for (let i = 0; i < 3; i++) {
      bound.runSync();
      for (const values of [bound.inputs['x'], bound.outputs['x'], bound.outputs['y']]) {
        expect(values!.data).toEqual(rows(7).data);
      }
    }
    // There as well, by the same name.
    using first = model.bind({ x: [1, 4] }, { onDevice: ['x', 'y'] });
    await first.onDevice['x']!.write(rows(3).data as Float32Array);
    first.runSync();
    using next = model.bind({ x: first.onDevice['y']! });
    next.runSync();
    expect(next.outputs['y']!.data).toEqual(rows(3).data);
  });

  it('refuses what cannot be bound', async () => {
    await using cpu = await loadModel(tiny);
    await using model = await loadModel(tiny, onGpu());
    await using other = await loadModel(mlp, onGpu());
    expect(() => cpu.bind({ x: [1, 4] }, { onDevice: ['y'] })).toThrow(
      'output "y" cannot stay on a GPU: the model does not run on one',
    );
    expect(() => model.bind({ x: [1, 4] }, { onDevice: ['z'] })).toThrow(
      'bind: "z" is no input or output',
    );
    using bound = model.bind({ x: [1, 4] }, { onDevice: ['y'] });
    expect(() => other.bind({ x: bound.onDevice['y']! })).toThrow(/input "x": expected .*784/);
  });

  it('has no memory of ONNX Runtime in the arena, which is pinned', async () => {
    const weights = benchModel('weights25');
    const leased = async (options: object): Promise<number> => {
      const before = stats().arena.leasedBytes;
      await using model = await loadModel(weights, options);
      await model.run({ x: { dtype: 'float32', shape: [1, 2560], data: new Float32Array(2560) } });
      return stats().arena.leasedBytes - before;
    };
    // What it would copy to a GPU from there, it would let go before the GPU has read it.
    expect(await leased(onGpu())).toBeLessThan(1e6);
    expect(await leased({})).toBeGreaterThan(25e6);
  });

  it('gives its memory back when it is closed', async () => {
    trim();
    const { reservedBytes, leases } = device();
    for (let i = 0; i < 5; i++) {
      const model = await loadModel(tiny, onGpu());
      await model.run({ x: rows(...new Array<number>(1000).fill(1)) });
      await model.close();
    }
    expect(device()).toMatchObject({ reservedBytes, leases });
  });
});

describe('options for a GPU', () => {
  it.each([
    [{ device: -1 }, 'option "gpu.device": expected a whole number from 0 to 65535, got -1'],
    [{ slots: 65 }, 'option "gpu.slots": expected a whole number from 0 to 64, got 65'],
    [{ arenaStrategy: 'toString' }, 'expected same-as-requested or next-power-of-two'],
    [{ slots: 0, graphs: true }, 'option "gpu.graphs": expected false where slots is 0'],
    [{ graphs: [] }, 'option "gpu.graphs": expected true, false or an array of batch sizes'],
    [{ graphs: [0] }, 'option "gpu.graphs": expected a whole number of 1 or more, got 0'],
    [{ arenaStrategy: 'best' }, 'expected same-as-requested or next-power-of-two, got "best"'],
    [{ precision: 'fp8' }, 'option "gpu.precision": expected fp32, fp16, bf16, int8, got "fp8"'],
    [{ engineCache: true }, 'option "gpu.engineCache": expected a folder or false, got true'],
    [{ memory: 1 }, 'option "gpu.memory" does not exist; the options are device, memoryLimit,'],
  ])('%j is refused', async (gpu, message) => {
    await expect(loadModel(tiny, { gpu: gpu as GpuOptions })).rejects.toThrow(message);
  });
});

it.skipIf(process.platform !== 'linux')('the driver is asked what the GPU does', () => {
  const said = inProcess(
    `
      tercel.configure({ arena: { pin: true } });
      const model = await tercel.loadModel(${JSON.stringify(tiny)}, { gpu: { standIn: true } });
      model.runSync({ x: { dtype: 'float32', shape: [1, 4], data: new Float32Array(4) } });
      const { name, driver, utilization, memoryUtilization, watts, celsius } = tercel.stats().devices[0];
      console.log(JSON.stringify({ name, driver, utilization, memoryUtilization, watts, celsius }));
    `,
    { LD_LIBRARY_PATH: fakeCudaFolder },
  );
  expect(said).toEqual({
    name: 'Fake GPU',
    driver: '999.1',
    utilization: 0.75,
    memoryUtilization: 0.25,
    watts: 123.5,
    // It has no sensor: `celsius` is left out.
  });
});
