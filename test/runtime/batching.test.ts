// Batches as a program sees them: who shares a run, what is copied, what one failure means to the others.
import { Worker } from 'node:worker_threads';
import { fileURLToPath } from 'node:url';
import {
  allocate,
  createEngine,
  InvalidInputError,
  loadModel,
  OverloadError,
  stats,
  type Model,
  type Tensor,
} from 'tercel';
import { describe, expect, it } from 'vitest';
import { benchModel } from '../../models/generate.js';
import { encodeModel, FLOAT, INT64 } from '../../models/onnx.js';
import { identity, liar, lookup } from '../support/models.js';

const row = (value: number, columns = 4, rows = 1): Tensor<'float32'> => ({
  dtype: 'float32',
  shape: [rows, columns],
  data: new Float32Array(rows * columns).fill(value),
});

/** Every run waits for a full batch, so that who shares it is known. */
const full = (maxBatch: number): object => ({
  batching: { maxBatch, maxDelayUs: 60_000_000 },
  inline: 'never',
});

async function echo(options: object): Promise<Model> {
  return loadModel(identity(FLOAT, ['n', 'm']), options);
}

describe('a batch', () => {
  it('is shared by what waits, and each gets its own', async () => {
    await using model = await echo(full(4));
    const results = await Promise.all([1, 2, 3, 4].map((value) => model.run({ x: row(value) })));
    results.forEach(({ y }, i) => {
      expect(y!.shape).toEqual([1, 4]);
      expect([...(y!.data as Float32Array)]).toEqual([i + 1, i + 1, i + 1, i + 1]);
    });
    expect(model.stats()).toMatchObject({ executions: 1, rows: 4, runsOnLanes: 4 });
    expect(model.stats().batches).toMatchObject([{ rows: 4, runs: 1 }]);
  });

  it('takes requests of several rows', async () => {
    await using model = await echo(full(6));
    const results = await Promise.all(
      [1, 2, 3].map((rows) => model.run({ x: row(rows, 4, rows) })),
    );
    expect(results.map(({ y }) => y!.shape)).toEqual([
      [1, 4],
      [2, 4],
      [3, 4],
    ]);
    results.forEach(({ y }, i) =>
      expect((y!.data as Float32Array).every((v) => v === i + 1)).toBe(true),
    );
    expect(model.stats()).toMatchObject({ executions: 1, rows: 6 });
  });

  it('is of one shape and one set of outputs', async () => {
    await using model = await echo(full(2));
    const runs = [row(1, 4), row(2, 8), row(3, 4), row(4, 8)].map((x) => model.run({ x }));
    const results = await Promise.all(runs);
    expect(results.map(({ y }) => y!.shape[1])).toEqual([4, 8, 4, 8]);
    expect(model.stats()).toMatchObject({ executions: 2, rows: 4 });
  });

  it('copies each tensor once in, and what is shared not at all out', async () => {
    const columns = 8192;
    await using model = await echo(full(4));
    const before = stats().copies;
    const results = await Promise.all(
      [1, 2, 3, 4].map((v) => model.run({ x: row(v, columns) }, { results: 'shared' })),
    );
    const after = stats().copies;
    expect(after.bytesIn - before.bytesIn).toBe(4 * columns * 4);
    expect(after.bytesOut - before.bytesOut).toBe(0);
    // One block of memory for all four.
    results.forEach(({ y }, i) => expect(y!.data[columns - 1]).toBe(i + 1));
    await Promise.all([5, 6, 7, 8].map((v) => model.run({ x: row(v, columns) })));
    expect(stats().copies.bytesOut - after.bytesOut).toBe(4 * columns * 4);
    // The memory that results share is not written again while they are there.
    results.forEach(({ y }, i) => expect(y!.data[0]).toBe(i + 1));
  });

  it('uses arena memory in place where the request runs alone', async () => {
    await using model = await echo({ batching: { maxBatch: 8 }, inline: 'never' });
    const x = allocate('float32', [1, 4096]);
    x.data.fill(3);
    const before = stats().copies.bytesIn;
    const { y } = await model.run({ x });
    expect(y!.data[4095]).toBe(3);
    expect(stats().copies.bytesIn).toBe(before);
  });

  it('that fails is run again one by one: only the guilty fails', async () => {
    await using model = await loadModel(lookup(), full(4));
    const results = await Promise.allSettled(
      [0n, 9n, 2n, 1n].map((index) =>
        model.run({ at: { dtype: 'int64', shape: [1], data: new BigInt64Array([index]) } }),
      ),
    );
    expect(results.map(({ status }) => status)).toEqual([
      'fulfilled',
      'rejected',
      'fulfilled',
      'fulfilled',
    ]);
    expect((results[1] as PromiseRejectedResult).reason).toBeInstanceOf(InvalidInputError);
    expect((results[2] as PromiseFulfilledResult<Record<string, Tensor>>).value['y']!.data[0]).toBe(
      2.5,
    );
    expect(model.stats()).toMatchObject({ failed: 0, invalid: 1, retriedBatches: 1 });
  });

  it('goes without those that were aborted', async () => {
    await using model = await echo(full(3));
    const stop = new AbortController();
    const aborted = model.run({ x: row(1) }, { signal: stop.signal });
    const rest = [model.run({ x: row(2) })];
    stop.abort();
    await expect(aborted).rejects.toThrow('aborted');
    model.configure({ batching: { maxBatch: 3 } });
    rest.push(model.run({ x: row(3) }), model.run({ x: row(4) }));
    const values = await Promise.all(rest);
    expect(values.map(({ y }) => y!.data[0])).toEqual([2, 3, 4]);
    expect(model.stats()).toMatchObject({ cancelled: 1, rows: 3 });
  });

  it('is split where a request is larger', async () => {
    await using model = await echo({ batching: { maxBatch: 4 }, inline: 'never' });
    const x = row(0, 4, 10);
    for (let i = 0; i < 40; i++) x.data[i] = i;
    const { y } = await model.run({ x });
    expect(y!.shape).toEqual([10, 4]);
    expect([...(y!.data as Float32Array)]).toEqual([...x.data]);
    expect(model.stats()).toMatchObject({ executions: 3, rows: 10, runs: 1 });
  });

  it('waits for the delay, and no longer', async () => {
    await using model = await echo({
      batching: { maxBatch: 4, maxDelayUs: 30_000 },
      inline: 'never',
    });
    const start = performance.now();
    await Promise.all([model.run({ x: row(1) }), model.run({ x: row(2) })]);
    expect(performance.now() - start).toBeGreaterThan(29);
    expect(model.stats().executions).toBe(1);
  });

  it('keeps the order on request', async () => {
    await using model = await echo({
      batching: { maxBatch: 2, preserveOrder: true },
      lanes: 2,
    });
    const order: number[] = [];
    await Promise.all(
      Array.from({ length: 200 }, (_, i) =>
        model.run({ x: row(i) }, { priority: 1 + (i % 8) }).then(() => order.push(i)),
      ),
    );
    expect(order).toEqual(Array.from({ length: 200 }, (_, i) => i));
  });

  it('has outputs that the model declares wrongly all the same', async () => {
    // y is declared as [n, 4] and is [n, 8].
    const model = await loadModel(
      encodeModel({
        name: 'liar',
        inputs: { x: { tensor: FLOAT, shape: ['n', 4] } },
        outputs: { y: { tensor: FLOAT, shape: ['n', 4] } },
        nodes: [{ op: 'Concat', inputs: ['x', 'x'], outputs: ['y'], attributes: { axis: 1 } }],
      }),
      full(3),
    );
    const results = await Promise.all([1, 2, 3].map((value) => model.run({ x: row(value) })));
    results.forEach(({ y }, i) => {
      expect(y!.shape).toEqual([1, 8]);
      expect([...(y!.data as Float32Array)]).toEqual(Array(8).fill(i + 1));
    });
    await model.close();
  });

  it('gives a request that ran alone all of its output, whatever its rows', async () => {
    await using model = await loadModel(liar(), { batching: { maxBatch: 64 }, inline: 'never' });
    const x: Tensor = { dtype: 'float32', shape: [3], data: Float32Array.of(1, 2, 3) };
    for (let i = 0; i < 3; i++) {
      const { y } = await model.run({ x });
      expect([...(y!.data as Float32Array)]).toEqual([1, 2, 3, 1, 2, 3]);
    }
    // Together the outputs do not divide: each is run again alone.
    model.configure({ batching: { maxBatch: 64, maxDelayUs: 20_000 } });
    for (const { y } of await Promise.all([model.run({ x }), model.run({ x })])) {
      expect(y!.shape).toEqual([6]);
    }
    const large: Tensor = { dtype: 'float32', shape: [200], data: new Float32Array(200) };
    expect((await model.run({ x: large }))['y']!.shape).toEqual([400]);
  });

  it('is not formed where the first dimension of an output is another one', async () => {
    const model = await loadModel(
      encodeModel({
        name: 'transposed',
        inputs: { x: { tensor: FLOAT, shape: ['batch', 'seq'] } },
        outputs: { y: { tensor: FLOAT, shape: ['seq', 'batch'] } },
        nodes: [{ op: 'Transpose', inputs: ['x'], outputs: ['y'], attributes: { perm: [1, 0] } }],
      }),
      full(4),
    );
    const results = await Promise.all([1, 2, 3, 4].map((value) => model.run({ x: row(value) })));
    results.forEach(({ y }, i) => {
      expect(y!.shape).toEqual([4, 1]);
      expect([...(y!.data as Float32Array)]).toEqual(Array(4).fill(i + 1));
    });
    await model.close();
  });

  it('may lose its order again, and nothing is lost', async () => {
    await using model = await echo({ batching: { maxBatch: 2, preserveOrder: true }, lanes: 2 });
    const runs = Array.from({ length: 100 }, (_, i) =>
      model.run({ x: row(i) }, { priority: 1 + (i % 8) }),
    );
    model.configure({ batching: { maxBatch: 2 } });
    runs.push(model.run({ x: row(100) }));
    const values = await Promise.all(runs);
    expect(values.map(({ y }) => y!.data[0])).toEqual(values.map((_, i) => i));
  });

  it('forms across the threads of the process', async () => {
    const file = fileURLToPath(new URL('../support/batch-worker.mjs', import.meta.url));
    const options = { batching: { maxBatch: 4, maxDelayUs: 20_000_000 }, inline: 'never' as const };
    await using model = await loadModel(benchModel('tiny'), options);
    const workers = [1, 2, 3].map(
      (value) => new Worker(file, { workerData: { path: benchModel('tiny'), value, options } }),
    );
    const answers = Promise.all(
      workers.map(
        (worker) =>
          new Promise<number>((resolve, reject) => {
            worker.once('message', resolve);
            worker.once('error', reject);
          }),
      ),
    );
    const mine = model.run({ x: row(10) });
    const values = await answers;
    const { y } = await mine;
    expect(
      values.map((value, i) => Math.round(y!.data[0] as number) - Math.round(value) + i),
    ).toEqual([9, 9, 9]);
    expect(model.stats()).toMatchObject({ executions: 1, rows: 4 });
    await Promise.all(workers.map((worker) => worker.terminate()));
  });

  it('survives the end of a worker with requests in it', async () => {
    const file = fileURLToPath(new URL('../support/batch-worker.mjs', import.meta.url));
    const options = { batching: { maxBatch: 3, maxDelayUs: 60_000_000 }, inline: 'never' as const };
    await using model = await loadModel(benchModel('tiny'), options);
    const mine = model.run({ x: row(1) });
    const worker = new Worker(file, {
      workerData: { path: benchModel('tiny'), value: 2, options },
    });
    while (model.stats().queued < 2) await new Promise((resolve) => setTimeout(resolve, 5));
    await worker.terminate();
    expect(model.stats()).toMatchObject({ queued: 1, cancelled: 1 });
    model.configure({ batching: { maxBatch: 3 } });
    const [a, b] = await Promise.all([mine, model.run({ x: row(1) })]);
    expect(a['y']!.data).toEqual(b['y']!.data);
  });
});

describe('padding', () => {
  const tokens = (length: number, value: number): Record<string, Tensor> => ({
    x: { dtype: 'float32', shape: [1, length], data: new Float32Array(length).fill(value) },
  });

  it('lets requests of different sizes share a run, and is cut off again', async () => {
    await using model = await loadModel(identity(FLOAT, ['batch', 'tokens']), {
      batching: { maxBatch: 3, maxDelayUs: 60_000_000, padding: { tokens: { sizes: [4, 8] } } },
      inline: 'never',
    });
    const results = await Promise.all(
      [5, 8, 6].map((length, i) => model.run(tokens(length, i + 1))),
    );
    expect(results.map(({ y }) => y!.shape)).toEqual([
      [1, 5],
      [1, 8],
      [1, 6],
    ]);
    results.forEach(({ y }, i) =>
      expect([...(y!.data as Float32Array)].every((v) => v === i + 1)).toBe(true),
    );
    expect(model.stats()).toMatchObject({ executions: 1, rows: 3 });
  });

  it('fills with the value that was asked for', async () => {
    // The sum over the padded dimension shows what it was filled with.
    const bytes = encodeModel({
      name: 'sum',
      opset: 11,
      inputs: { x: { tensor: INT64, shape: ['batch', 'tokens'] } },
      outputs: { y: { tensor: INT64, shape: ['batch', 1] } },
      nodes: [{ op: 'ReduceSum', inputs: ['x'], outputs: ['y'], attributes: { axes: [1] } }],
    });
    await using model = await loadModel(bytes, {
      batching: { maxBatch: 2, padding: { tokens: { multipleOf: 4 } }, padValues: { x: 100 } },
      inline: 'never',
    });
    const { y } = await model.run({
      x: { dtype: 'int64', shape: [1, 3], data: new BigInt64Array([1n, 2n, 3n]) },
    });
    expect(y!.data).toEqual(new BigInt64Array([106n]));
  });

  it('is of dimensions that the model has', async () => {
    await expect(
      echo({ batching: { maxBatch: 2, padding: { tokens: { multipleOf: 4 } } } }),
    ).rejects.toThrow('dynamic dimensions of the inputs (m), got "tokens"');
  });
});

describe('options', () => {
  it.each([
    [{ maxBatch: 0 }, 'option "batching.maxBatch": expected a whole number of 1 or more, got 0'],
    [{ maxDelay: 1 }, 'option "batching.maxDelay" does not exist'],
    [{ maxBatch: 4, preferredSizes: [8] }, 'sizes up to maxBatch (4), got 8'],
    [{ targetP99Ms: -1 }, 'milliseconds above 0'],
    [{ maxBatch: 2, padValues: { z: 1 } }, 'names of inputs, got "z"'],
  ])('%j is refused', async (batching, message) => {
    const loading = echo({ batching });
    await expect(loading).rejects.toThrow(InvalidInputError);
    await expect(loading).rejects.toThrow(message);
  });
});

describe('what is measured', () => {
  it('batches a small model of matrices, and not one whose rows mix', async () => {
    await using engine = createEngine();
    const mlp = await engine.load('mlp', benchModel('mlp'));
    expect(mlp.model.stats().batching.maxBatch).toBeGreaterThanOrEqual(4);
    // A softmax over the batch: each row's result depends on its neighbours.
    const mixing = await engine.load(
      'mixing',
      encodeModel({
        name: 'mixing',
        inputs: { x: { tensor: FLOAT, shape: ['n', 4] } },
        outputs: { y: { tensor: FLOAT, shape: ['n', 4] } },
        nodes: [{ op: 'Softmax', inputs: ['x'], outputs: ['y'], attributes: { axis: 0 } }],
      }),
    );
    expect(mixing.model.stats().batching.maxBatch).toBe(1);
  });

  it('gives engine.infer() priorities, deadlines and signals', async () => {
    await using engine = createEngine();
    await engine.load('echo', identity(FLOAT, ['n', 'm']), full(2));
    const stop = new AbortController();
    const aborted = engine.infer('echo', { x: row(1) }, { signal: stop.signal, priority: 1 });
    const late = engine.infer('echo', { x: row(1) }, { timeoutMs: 20 });
    stop.abort();
    await expect(aborted).rejects.toThrow('aborted');
    await expect(late).rejects.toThrow('the deadline passed');
    await expect(engine.infer('nope', { x: row(1) })).rejects.toThrow(
      'model "nope" does not exist',
    );
  });

  it('refuses what would miss a latency target', async () => {
    await using model = await loadModel(benchModel('minilm'), {
      batching: { targetP99Ms: 100, maxBatch: 2 },
      lanes: 1,
    });
    const ids: Tensor = { dtype: 'int64', shape: [1, 16], data: new BigInt64Array(16).fill(1n) };
    const inputs = { input_ids: ids, attention_mask: ids };
    for (let i = 0; i < 5; i++) await model.run(inputs);
    const results = await Promise.allSettled(Array.from({ length: 200 }, () => model.run(inputs)));
    const refused = results.filter(({ status }) => status === 'rejected');
    expect(refused.length).toBeGreaterThan(0);
    expect(refused.length).toBeLessThan(200);
    expect((refused[0] as PromiseRejectedResult).reason).toBeInstanceOf(OverloadError);
    expect((refused[0] as PromiseRejectedResult).reason).toMatchObject({
      message: expect.stringContaining('latency target of 100000 us') as string,
    });
  });
});
