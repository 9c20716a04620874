// Servables of a program's own, by every protocol.
import net from 'node:net';
import { fileURLToPath } from 'node:url';
import grpc from '@grpc/grpc-js';
import protoLoader from '@grpc/proto-loader';
import {
  createEngine,
  createGrpcServer,
  InvalidInputError,
  type Engine,
  type Running,
  type Servable,
  type Tensor,
  type Values,
} from 'tercel';
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import { identity } from '../support/models.js';
import { Transports, type Ask } from '../support/transports.js';
import { until } from '../support/wait.js';

const info = { dtype: 'float32', shape: ['n'] } as const;

/** y is x backwards. */
const reverse: Servable = {
  name: 'reverse',
  version: '1',
  inputs: [{ name: 'x', ...info }],
  outputs: [{ name: 'y', ...info }],
  accepts: 'tensors',
  start(_prepared, { x }, _call, reply) {
    const { shape, data } = x as Tensor<'float32'>;
    reply.answer({ y: { dtype: 'float32', shape, data: Float32Array.from(data).reverse() } });
    return undefined;
  },
};

/** y is x, then 2x, then 3x. */
const thrice: Servable = {
  ...reverse,
  name: 'thrice',
  start(_prepared, { x }, _call, reply) {
    const { shape, data } = x as Tensor<'float32'>;
    const times = (n: number): Values => ({
      y: { dtype: 'float32', shape, data: Float32Array.from(data, (value) => n * value) },
    });
    setImmediate(() => {
      reply.part(times(1));
      reply.part(times(2));
      reply.answer(times(3));
    });
    return undefined;
  },
};

/** As thrice, but for its end, which says nothing more. */
const parts: Servable = {
  ...thrice,
  name: 'parts',
  start(prepared, inputs, call, reply) {
    return thrice.start(prepared, inputs, call, {
      onDrain: undefined,
      part: (values) => reply.part(values),
      answer(values) {
        reply.part(values!);
        reply.answer();
      },
      fail: (error) => reply.fail(error),
    });
  },
};

const x = (...values: number[]): Ask['inputs'] => ({
  x: { dtype: 'float32', shape: [values.length], data: Float32Array.from(values) },
});

let engine: Engine;
let transports: Transports;
beforeAll(async () => {
  engine = createEngine();
  for (const servable of [reverse, thrice, parts]) engine.register(servable);
  transports = await Transports.open(engine);
});
afterAll(async () => {
  await transports.close();
  await engine.close();
});

const get = async (path: string): Promise<Record<string, unknown>> =>
  (await (await fetch(`http://127.0.0.1:${transports.port}${path}`)).json()) as never;

describe('a servable', () => {
  it('answers by every protocol, and counts', async () => {
    type Stats = Record<string, unknown>;
    const stats = async (): Promise<Stats> =>
      ((await get('/v2/models/reverse/stats'))['model_stats'] as Stats[])[0]!;
    expect(await stats()).toMatchObject({ inference_count: 0, last_inference: 0 });
    const before = Date.now();
    for (const { ask } of transports.list) {
      const { values, words } = await ask({ model: 'reverse', inputs: x(1, 2, 3) });
      expect([words, values]).toEqual(['', [{ y: [3, 2, 1] }]]);
    }
    const events = await transports.events({ model: 'reverse', inputs: x(1, 2) });
    expect(events.values).toEqual([{ y: [2, 1] }]);
    const requests = transports.list.length + 1;
    const all = await stats();
    expect(all).toMatchObject({
      // Its first dimension is open: it has rows.
      inference_count: 3 * (requests - 1) + 2,
      execution_count: requests,
      inference_stats: { success: { count: requests }, fail: { count: 0 } },
      batch_stats: [
        { batch_size: 2, compute_infer: { count: 1 } },
        { batch_size: 3, compute_infer: { count: requests - 1 } },
      ],
    });
    expect(all['last_inference']).toBeGreaterThanOrEqual(before - 1);
    expect(all['last_inference']).toBeLessThanOrEqual(Date.now());
  });

  it('says what it is', async () => {
    expect(await get('/v2/models/reverse')).toEqual({
      name: 'reverse',
      versions: ['1'],
      platform: 'tercel',
      inputs: [{ name: 'x', datatype: 'FP32', shape: [-1] }],
      outputs: [{ name: 'y', datatype: 'FP32', shape: [-1] }],
    });
    expect(await get('/v2/models/reverse/config')).toMatchObject({
      name: 'reverse',
      backend: 'tercel',
    });
    expect(await get('/v2/models/reverse/ready')).toEqual({ name: 'reverse', ready: true });
    expect(await get('/v1/models/reverse')).toMatchObject({
      model_version_status: [{ version: '1', state: 'AVAILABLE' }],
    });
    expect(await get('/v1/models/reverse/metadata')).toMatchObject({
      model_spec: { name: 'reverse', version: '1' },
    });
    const index = await fetch(`http://127.0.0.1:${transports.port}/v2/repository/index`, {
      method: 'POST',
    });
    expect(await index.json()).toContainEqual({
      name: 'reverse',
      version: '1',
      state: 'READY',
      reason: '',
    });
  });

  it('answers in parts where the protocol has any, and is refused where it has not', async () => {
    for (const model of ['thrice', 'parts']) {
      const told = { y: [1, 2] };
      const inputs = x(1, 2);
      const three = [told, { y: [2, 4] }, { y: [3, 6] }];
      expect((await transports.events({ model, inputs })).values).toEqual(three);
      for (const { name, ask, codes, streams } of transports.list) {
        const { code, values, words } = await ask({ model, inputs });
        if (streams) {
          expect([words, values]).toEqual(['', three]);
          continue;
        }
        const expected = { http: 501, grpc: 12, error: 'UNIMPLEMENTED', none: undefined };
        expect([name, code, words]).toEqual([
          name,
          expected[codes],
          `model "${model}" answers in parts, which this protocol cannot carry; ask for a stream`,
        ]);
      }
    }
  });

  it('is ended by close(), which waits for what drains', async () => {
    const own = createEngine();
    const waiting: (() => void)[] = [];
    let closed = 0;
    let cancelled = 0;
    const held: Servable = {
      ...reverse,
      name: 'held',
      start: (_prepared, { x }, _call, reply): Running => {
        waiting.push(() => reply.answer({ y: x! }));
        return { cancel: () => cancelled++ };
      },
      close: () => Promise.resolve(void closed++),
    };
    own.register(held);
    const first = own.infer('held', x(1));
    const removed = own.unload('held');
    await expect(own.infer('held', x(1) as Values)).rejects.toMatchObject({ code: 'UNAVAILABLE' });
    expect(closed).toBe(0);
    waiting.shift()!();
    expect((await first)['y']!.data[0]).toBe(1);
    expect([await removed, closed, cancelled]).toEqual([true, 1, 0]);
    // Registered again, and ended with a request under way.
    own.register(held);
    const second = own.infer('held', x(1));
    const failed = expect(second).rejects.toMatchObject({ code: 'CLOSED' });
    await own.close();
    await failed;
    expect([closed, cancelled]).toEqual([2, 1]);
    waiting.shift()!(); // which nobody hears
  });

  it('that never answers is ended at the deadline, and one that throws late is not heard', async () => {
    let cancelled = 0;
    engine.register({ ...reverse, name: 'endless', start: () => ({ cancel: () => cancelled++ }) });
    let asked = 0;
    for (const { ask, says, name } of transports.list) {
      if (!says.includes('timeout')) continue;
      const told = await ask({ model: 'endless', inputs: x(1), timeoutMs: 20 });
      expect([name, told.words]).toEqual([name, 'the deadline passed']);
      asked++;
    }
    expect(cancelled).toBe(asked);
    engine.register({
      ...reverse,
      name: 'late',
      start: (async () => {
        await Promise.resolve();
        throw new InvalidInputError('too late to be thrown');
      }) as never,
    });
    const [{ ask }] = transports.list as [(typeof transports.list)[number]];
    expect(await ask({ model: 'late', inputs: x(1) })).toMatchObject({
      code: 400,
      words: 'too late to be thrown',
    });
    await engine.unload('endless');
  });

  it('is answered for as it is, however its outputs change', async () => {
    let turn = 0;
    engine.register({
      ...reverse,
      name: 'fickle',
      outputs: [
        { name: 'a', ...info },
        { name: 'b', ...info },
      ],
      start(_prepared, _inputs, _call, reply) {
        const float = (value: number): Tensor => ({
          dtype: 'float32',
          shape: [1],
          data: Float32Array.of(value),
        });
        const double: Tensor = { dtype: 'float64', shape: [1], data: Float64Array.of(1.5) };
        const all = [
          { a: float(1), b: float(2) },
          { b: float(2), a: float(1) },
          { a: double, b: float(2) },
        ];
        reply.answer(all[turn]);
        return undefined;
      },
    });
    const answers: unknown[] = [];
    for (const { ask, name } of transports.list) {
      if (!/^HTTP|^gRPC/.test(name)) continue;
      for (turn of [0, 1, 0]) answers.push((await ask({ model: 'fickle', inputs: x(1) })).values);
    }
    for (const answer of answers) expect(answer).toEqual([{ a: [1], b: [2] }]);
    turn = 2;
    const [{ ask }] = transports.list as [(typeof transports.list)[number]];
    expect((await ask({ model: 'fickle', inputs: x(1) })).values).toEqual([{ a: [1.5], b: [2] }]);
  });

  it('is heard once, and its mistakes are its requests’', async () => {
    engine.register({
      ...reverse,
      name: 'chatty',
      start(_prepared, { x }, _call, reply) {
        reply.answer({ y: x! });
        reply.answer({ y: { dtype: 'float32', shape: [1], data: Float32Array.of(9) } });
        reply.part({ y: x! });
        reply.fail(new Error('after all'));
        return { cancel: () => {} };
      },
    });
    for (const { name, ask } of transports.list) {
      const { words, values } = await ask({ model: 'chatty', inputs: x(1, 2) });
      expect([name, words, values]).toEqual([name, '', [{ y: [1, 2] }]]);
    }
    const told = await transports.events({ model: 'chatty', inputs: x(1, 2) });
    expect([told.words, told.values]).toEqual(['', [{ y: [1, 2] }]]);
    engine.register({
      ...reverse,
      name: 'drained',
      start(_prepared, _inputs, _call, reply) {
        const data = new Float32Array(1 << 16);
        reply.onDrain = () => {
          throw new InvalidInputError('I had enough');
        };
        setImmediate(() => {
          while (reply.part({ y: { dtype: 'float32', shape: [1 << 16], data } }));
        });
        return undefined;
      },
    });
    const stream = transports.list.find(({ streams }) => streams)!;
    expect((await stream.ask({ model: 'drained', inputs: x(1) })).words).toBe('I had enough');
    // A default that cannot be is its own mistake, whoever asked before with the same words.
    const about = { defaults: { priority: 9 } };
    engine.register({ ...reverse, name: 'unable', about });
    for (const { ask } of transports.list) {
      expect((await ask({ model: 'reverse', inputs: x(1, 2) })).values).toEqual([{ y: [2, 1] }]);
      const told = await ask({ model: 'unable', inputs: x(1, 2) });
      expect(told.words).toBe('priority: expected 1 to 8, got 9');
      expect((await ask({ model: 'reverse', inputs: x(1, 2) })).values).toEqual([{ y: [2, 1] }]);
    }
  });

  it('whose close() fails ends nothing but itself', async () => {
    const logged = vi.spyOn(console, 'error').mockImplementation(() => {});
    const own = createEngine();
    const sour: Servable = {
      ...reverse,
      name: 'sour',
      close: () => Promise.reject(new Error('it is stuck')),
    };
    own.register(sour);
    own.register({ ...sour, drains: true }, { replace: true });
    await until(() => logged.mock.calls.length === 1);
    expect(logged.mock.calls[0]![0]).toBe('model "sour" version 1 could not be closed:');
    await expect(own.unload('sour')).rejects.toThrow('it is stuck');
    let closed = false;
    own.register(sour);
    own.register({ ...reverse, name: 'other', close: () => Promise.resolve(void (closed = true)) });
    await expect(own.close()).rejects.toThrow('it is stuck');
    expect(closed).toBe(true);
    logged.mockRestore();
  });

  it('is let go when clients leave while their bodies are read', async () => {
    const stats = {
      ...{ inferences: 0, executions: 0, lastMs: 0, batches: [] },
      ...{ success: { count: 0, us: 0 }, fail: { count: 0, us: 0 } },
      ...{ queue: { count: 0, us: 0 }, infer: { count: 0, us: 0 } },
    };
    engine.register({ ...reverse, name: 'long', stats: () => stats });
    // So long that it is read on a thread of its own.
    const data = Array.from({ length: 200_000 }, (_, i) => i);
    const body = JSON.stringify({
      inputs: [{ name: 'x', shape: [data.length], datatype: 'FP32', data }],
    });
    const head = `POST /v2/models/long/infer HTTP/1.1\r\nHost: a\r\nContent-Length: ${body.length}\r\n\r\n`;
    for (let i = 0; i < 12; i++) {
      const socket = net.connect(transports.port, '127.0.0.1');
      socket.on('error', () => {});
      await new Promise<void>((resolve) => socket.write(head + body, () => resolve()));
      await new Promise((resolve) => setTimeout(resolve, i));
      socket.destroy();
    }
    // It waits for what is under way: nothing may stay there.
    expect(await engine.unload('long')).toBe(true);
  });

  it('takes the place of its version, and fits in beside models', async () => {
    const own = createEngine();
    await own.load('m', identity(1, ['n']));
    own.register({ ...reverse, name: 'm', version: '2' });
    const first = async (version?: string): Promise<number> =>
      (await own.infer('m', x(1, 2), version === undefined ? {} : { version }))['y']!
        .data[0] as number;
    expect([await first(), await first('1'), await first('2')]).toEqual([2, 1, 2]);
    expect(() => own.register({ ...reverse, name: 'm', version: '2' })).toThrow(
      'model "m" version 2 is loaded already',
    );
    own.register(
      {
        ...thrice,
        name: 'm',
        version: '2',
        start: (_p, { x }, _c, r) => (r.answer({ y: x! }), undefined),
      },
      { replace: true },
    );
    expect(await first()).toBe(1);
    await own.close();
  });

  it.each([
    [{ ...reverse, name: '' }, 'name: expected a text'],
    [{ ...reverse, version: 'first' }, 'version: expected a positive whole number'],
    [{ ...reverse, accepts: 'bytes' }, "accepts: expected 'raw' or 'tensors'"],
    [{ ...reverse, start: undefined }, 'start must be a function'],
    [{ ...reverse, inputs: undefined }, 'inputs must be an array'],
  ])('that is none is refused: %#', (servable, message) => {
    expect(() => engine.register(servable as unknown as Servable)).toThrow(InvalidInputError);
    expect(() => engine.register(servable as unknown as Servable)).toThrow(message);
  });
});

describe('the catalog', () => {
  it('tells of what is to come', async () => {
    const own = createEngine();
    const states: string[] = [];
    const stop = own.catalog.onChange(() =>
      states.push(
        own.catalog
          .list()
          .map((e) => `${e.name} ${e.version} ${e.state}`)
          .join(', '),
      ),
    );
    const loading = own.load('m', identity(1, ['n']), { version: '3' });
    await expect(own.infer('m', x(1) as Values)).rejects.toMatchObject({
      code: 'UNAVAILABLE',
      message: 'model "m" is being loaded',
    });
    await expect(own.infer('m', x(1) as Values, { version: '2' })).rejects.toMatchObject({
      code: 'NOT_FOUND',
    });
    await loading;
    await own.infer('m', x(1));
    await own.unload('m');
    expect(states).toEqual([
      'm 3 LOADING',
      'm 3 READY', // served, while the load ends
      'm 3 READY',
      'm 3 UNLOADING',
      '',
    ]);
    stop();
    await expect(own.load('broken', new Uint8Array(3))).rejects.toThrow();
    await expect(own.infer('broken', {})).rejects.toMatchObject({ code: 'NOT_FOUND' });
    expect(states.length).toBe(5);
    await own.close();
  });
});

describe('health over gRPC', () => {
  const close: (() => unknown)[] = [];
  afterEach(async () => {
    for (const each of close.splice(0)) await each();
  });

  it('follows the catalog', async () => {
    const own = createEngine();
    close.push(() => own.close());
    const server = createGrpcServer(own);
    const port = await server.listen({ port: 0 });
    const schema = fileURLToPath(new URL('../../schema', import.meta.url));
    const loaded = protoLoader.loadSync('health.proto', { includeDirs: [schema], enums: String });
    const Client = grpc.makeGenericClientConstructor(
      loaded['grpc.health.v1.Health'] as unknown as grpc.ServiceDefinition,
      'Health',
    );
    const client = new Client(`127.0.0.1:${port}`, grpc.credentials.createInsecure());
    close.push(() => client.close());
    type Watch = (request: object) => grpc.ClientReadableStream<{ status: string }>;
    const watch = (client as unknown as Record<string, Watch>)['Watch']!.bind(client);
    const seen: string[] = [];
    const stream = watch({ service: 'reverse' });
    stream.on('data', ({ status }: { status: string }) => seen.push(status));
    stream.on('error', () => {});
    await until(() => seen.length === 1);
    const changed = async (change: () => unknown, status: string): Promise<void> => {
      await change();
      await until(() => seen.at(-1) === status);
    };
    await changed(() => own.register(reverse), 'SERVING');
    await changed(() => own.unload('reverse'), 'SERVICE_UNKNOWN');
    expect(seen[0]).toBe('SERVICE_UNKNOWN');
    await changed(() => own.register(reverse), 'SERVING');
    const ended = new Promise((resolve) => stream.on('end', resolve));
    void server.close();
    await ended;
  });
});
