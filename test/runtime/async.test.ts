// run(): queue, deadline, abort, close, and what it may never do: block, starve, copy too much.
import { setTimeout as sleep } from 'node:timers/promises';
import {
  allocate,
  ClosedError,
  configure,
  InvalidInputError,
  loadModel,
  OverloadError,
  stats,
  TimeoutError,
  type Model,
  type Tensor,
} from 'tercel';
import { describe, expect, it } from 'vitest';
import { gather, identity, slow } from '../support/models.js';
import { PATIENCE_MS, until } from '../support/wait.js';

// Three lanes side by side on a machine of any size.
configure({ computeThreads: 3 });

const x: Tensor = { dtype: 'float32', shape: [64, 64], data: new Float32Array(4096).fill(0.01) };

/** Inputs for a run of about `ms` milliseconds; it ends early only when it is terminated. */
const lasting = (ms: number): Record<string, Tensor> => ({
  x,
  rounds: { dtype: 'int64', shape: [], data: new BigInt64Array([BigInt(ms * 130)]) },
});
const forever = lasting(60_000);

const loadSlow = (options = {}): Promise<Model> => loadModel(slow(), { lanes: 1, ...options });

describe('the queue', () => {
  it('refuses what does not fit, and goes on', async () => {
    await using model = await loadSlow({ maxQueue: 2 });
    const stop = new AbortController();
    const first = model.run(forever, { signal: stop.signal }).catch((e: unknown) => e);
    await until(() => model.stats().running === 1);
    const waiting = [model.run(lasting(1)), model.run(lasting(1))];
    await expect(model.run(lasting(1))).rejects.toThrow(OverloadError);
    await expect(model.run(lasting(1))).rejects.toThrow(
      'the queue is full: 2 requests are waiting',
    );
    stop.abort();
    await first;
    await Promise.all(waiting);
    expect(model.stats()).toMatchObject({ refused: 2, queued: 0, running: 0 });
  });

  it('takes the higher priority first, and equal ones in order', async () => {
    await using model = await loadSlow();
    const stop = new AbortController();
    const first = model.run(forever, { signal: stop.signal }).catch(() => {});
    await until(() => model.stats().running === 1);
    const order: string[] = [];
    const runs = (
      [
        ['normal 1', undefined],
        ['last', 8],
        ['first', 1],
        ['normal 2', 4],
      ] as const
    ).map(([name, priority]) =>
      model.run(lasting(1), priority ? { priority } : {}).then(() => order.push(name)),
    );
    stop.abort();
    await Promise.all([first, ...runs]);
    expect(order).toEqual(['first', 'normal 1', 'normal 2', 'last']);
    await expect(model.run(lasting(1), { priority: 0 })).rejects.toThrow(
      'priority: expected 1 to 8',
    );
  });

  it('works lanes side by side', async () => {
    await using model = await loadSlow({ lanes: 3 });
    const runs = [1, 2, 3].map(() => model.run(lasting(300)));
    await until(() => model.stats().running === 3);
    await Promise.all(runs);
    expect(model.stats().lanes).toBe(3);
  });
});

describe('a deadline', () => {
  it('reaches the queue and the run', async () => {
    await using model = await loadSlow();
    const ended: string[] = [];
    const running = model.run(forever, { timeoutMs: 300 }).finally(() => ended.push('running'));
    const queued = model.run(forever, { timeoutMs: 50 }).finally(() => ended.push('queued'));
    const both = await Promise.allSettled([running, queued]);
    for (const one of both) {
      expect(one).toMatchObject({ status: 'rejected', reason: expect.any(TimeoutError) as Error });
    }
    expect(ended).toEqual(['queued', 'running']); // it did not wait for the run before it
    await model.run(lasting(1), { timeoutMs: PATIENCE_MS });
    expect(model.stats().expired).toBe(2);
    await expect(model.run(lasting(1), { timeoutMs: -1 })).rejects.toThrow(
      'timeoutMs: expected more',
    );
  });
});

describe('an AbortSignal', () => {
  it('works before, while queued, during the run, and after', async () => {
    await using model = await loadSlow();
    const before = AbortSignal.abort(new Error('too late'));
    await expect(model.run(lasting(1), { signal: before })).rejects.toThrow('too late');
    expect(model.stats().queued + model.stats().running).toBe(0);

    const during = new AbortController();
    const queued = new AbortController();
    const first = model.run(forever, { signal: during.signal });
    await until(() => model.stats().running === 1);
    const second = model.run(forever, { signal: queued.signal });
    queued.abort(new Error('never mind'));
    queued.abort();
    await expect(second).rejects.toThrow('never mind');
    expect(model.stats().queued).toBe(0);
    during.abort();
    await expect(first).rejects.toMatchObject({ name: 'AbortError' });
    await until(() => model.stats().running === 0);

    const after = new AbortController();
    await model.run(lasting(1), { signal: after.signal });
    after.abort();
    await model.run(lasting(1));
    expect(model.stats().cancelled).toBe(2);
  });
});

describe('closing', () => {
  it('rejects what is queued and running, once', async () => {
    const model = await loadSlow();
    const runs = Promise.allSettled([model.run(forever), model.run(forever), model.run(forever)]);
    await until(() => model.stats().running === 1);
    const closing = model.close();
    expect(model.close()).toBe(closing);
    for (const run of await runs) {
      expect((run as PromiseRejectedResult).reason).toBeInstanceOf(ClosedError);
    }
    await closing;
    await expect(model.run(lasting(1))).rejects.toThrow(ClosedError);
    expect(() => model.runSync(lasting(1))).toThrow(ClosedError);
    expect(() => model.bind()).toThrow(ClosedError);
    expect(() => model.stats()).toThrow(ClosedError);
  });

  it('closes bindings, in use or not', async () => {
    const model = await loadSlow();
    const idle = model.bind();
    const busy = model.bind();
    (busy.inputs['rounds']!.data as BigInt64Array)[0] = 1_000_000_000n;
    const run = busy.run();
    await until(() => model.stats().running === 1);
    expect(() => busy.runSync()).toThrow('the binding is running');
    await expect(busy.run()).rejects.toThrow(InvalidInputError);
    await Promise.all([model.close(), expect(run).rejects.toThrow(ClosedError)]);
    expect(() => idle.runSync()).toThrow(ClosedError);
    idle.close();
    // Its memory is still there for whoever holds it.
    expect((idle.inputs['x']!.data as Float32Array).length).toBe(4096);
  });

  it('of one handle leaves the others', async () => {
    const bytes = identity(1);
    const a = await loadModel(bytes);
    const b = await loadModel(bytes);
    await a.close();
    expect(
      b.runSync({ x: { dtype: 'float32', shape: [1], data: new Float32Array([4]) } })['y']!.data[0],
    ).toBe(4);
    await b.close();
  });
});

it('gives what fails in the graph for its inputs as InvalidInputError, and runs on', async () => {
  await using model = await loadModel(gather(), { inline: 'never' });
  const inputs = (at: bigint): Record<string, Tensor> => ({
    x: { dtype: 'float32', shape: [2], data: new Float32Array([1, 2]) },
    at: { dtype: 'int64', shape: [1], data: new BigInt64Array([at]) },
  });
  for (let i = 0; i < 3; i++) {
    await expect(model.run(inputs(5n))).rejects.toThrow(InvalidInputError);
    await expect(model.run(inputs(5n))).rejects.toThrow(/indices element out of data bounds/);
    expect(() => model.runSync(inputs(5n))).toThrow(InvalidInputError);
    expect((await model.run(inputs(1n)))['y']!.data[0]).toBe(2);
  }
  expect(model.stats()).toMatchObject({ failed: 0, invalid: 9, runs: 12 });
});

it('does not see what JS does to its buffers meanwhile', async () => {
  await using model = await loadModel(identity(1), { inline: 'never' });
  const data = new Float32Array(1000).fill(1);
  const result = model.run({ x: { dtype: 'float32', shape: [1000], data } });
  data.fill(2);
  const moved = structuredClone(data, { transfer: [data.buffer] });
  expect(data.length).toBe(0);
  expect(moved[0]).toBe(2);
  expect(new Set((await result)['y']!.data as Float32Array)).toEqual(new Set([1]));
  await expect(model.run({ x: { dtype: 'float32', shape: [1000], data } })).rejects.toThrow(
    'shape [1000] holds 1000 elements, data has 0 (is its buffer detached?)',
  );
});

it('copies what it says: nothing in and nothing out where it can', async () => {
  await using model = await loadModel(identity(1), { inline: 'never' });
  const bytes = 4000;
  const copied = async (run: () => unknown): Promise<[number, number]> => {
    const before = stats().copies;
    await run();
    const after = stats().copies;
    return [after.bytesIn - before.bytesIn, after.bytesOut - before.bytesOut];
  };
  const plain: Tensor = { dtype: 'float32', shape: [1000], data: new Float32Array(1000) };
  const shared: Tensor = { ...plain, data: new Float32Array(new SharedArrayBuffer(bytes)) };
  const leased = allocate('float32', [1000]);
  const part: Tensor = { ...leased, shape: [500], data: leased.data.subarray(500) };
  expect(await copied(() => model.run({ x: plain }))).toEqual([bytes, bytes]);
  expect(await copied(() => model.run({ x: shared }))).toEqual([0, bytes]);
  expect(await copied(() => model.run({ x: leased }))).toEqual([0, bytes]);
  expect(await copied(() => model.run({ x: part }))).toEqual([0, bytes / 2]);
  const out = allocate('float32', [1000]);
  expect(await copied(() => model.run({ x: leased }, { outputs: { y: out } }))).toEqual([0, 0]);
  expect(await copied(() => model.run({ x: shared }, { outputs: { y: shared } }))).toEqual([0, 0]);
  expect(await copied(() => model.runSync({ x: plain }))).toEqual([0, 0]);
  expect(await copied(() => model.runSync({ x: plain }, { outputs: { y: out } }))).toEqual([0, 0]);
  const binding = model.bind({ x: [1000] });
  expect(await copied(() => binding.runSync())).toEqual([0, 0]);
  expect(await copied(() => binding.run())).toEqual([0, 0]);
});

describe('a refused run', () => {
  it('leaves nothing waiting for a wake that never comes', async () => {
    const input = { x: { dtype: 'float32', shape: [4], data: new Float32Array(4) } } as const;
    const model = await loadModel(identity(1), { inline: 'never' });
    for (let i = 0; i < 20; i++) await model.run(input); // its median is known: JS polls
    await sleep(5);
    await expect(model.run(input, { timeoutMs: 1e-7 })).rejects.toThrow(TimeoutError);
    await model.close();
    // Two callers of one session: the other's queue is full, mine must still be told of my run.
    await using busy = await loadSlow({ maxQueue: 1 });
    const running = busy.run(lasting(200));
    await until(() => busy.stats().running === 1);
    const queued = busy.run(lasting(1));
    await expect(busy.run(lasting(1))).rejects.toThrow(OverloadError);
    await Promise.all([running, queued]);
  });

  it('by a signal that is none rejects, and the model goes on', async () => {
    await using model = await loadModel(identity(1), { inline: 'never' });
    const input = { x: { dtype: 'float32', shape: [4], data: new Float32Array(4) } } as const;
    for (let i = 0; i < 20; i++) await model.run(input);
    await expect(model.run(input, { signal: {} as AbortSignal })).rejects.toThrow(
      'signal: expected an AbortSignal',
    );
    expect((await model.run(input))['y']!.shape).toEqual([4]);
  });
});

it("reads the caller's getters before it writes for native code", async () => {
  await using model = await loadModel(identity(1), { inline: 'never' });
  const input = (value: number) =>
    ({ x: { dtype: 'float32', shape: [2], data: new Float32Array(2).fill(value) } }) as const;
  const inner: Promise<Record<string, Tensor>>[] = [];
  const options = {
    get priority(): number {
      inner.push(model.run(input(2)));
      return 4;
    },
  };
  const outer = await model.run(input(1), options);
  expect([...(outer['y']!.data as Float32Array)]).toEqual([1, 1]);
  expect([...((await inner[0]!)['y']!.data as Float32Array)]).toEqual([2, 2]);
});
