// Interceptors see every request on every path, and take none off the fast one.
import { createEngine, createServer, TercelError, type Engine, type Interceptor } from 'tercel';
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import { identity } from '../support/models.js';
import { Transports, type Ask } from '../support/transports.js';
import { all, closing, connect, first, next, request, type App } from '../support/wire.js';

const inputs: Ask['inputs'] = {
  x: { dtype: 'float32', shape: [1, 2], data: Float32Array.of(1, 2) },
};

let engine: Engine;
let transports: Transports;
const removals: (() => void)[] = [];
const use = (interceptor: Interceptor): void => void removals.push(engine.use(interceptor));

beforeAll(async () => {
  engine = createEngine();
  await engine.load('echo', identity(1, ['n', 2]), { batching: { maxBatch: 4 } });
  transports = await Transports.open(engine);
});
afterEach(() => {
  for (const remove of removals.splice(0)) remove();
});
afterAll(async () => {
  await transports.close();
  await engine.close();
});

let number = 0;
/** A traceparent of the W3C that no request had yet. */
const traceparent = (): string =>
  `00-${(++number).toString(16).padStart(32, '0')}-${number.toString(16).padStart(16, '0')}-01`;

describe('an interceptor', () => {
  it('sees every request on every path, with its headers, on the fast path', async () => {
    const seen: string[] = [];
    const outcomes: string[] = [];
    use({
      name: 'authorization',
      headers: ['Authorization'],
      kinds: ['infer'],
      enter(exchange) {
        // A program in this process needs no token.
        if (exchange.peer.inProcess) return;
        const token = exchange.header('authorization');
        if (token === 'Bearer good') return;
        throw new TercelError(
          token ? 'DENIED' : 'UNAUTHENTICATED',
          `not with ${token ?? 'nothing'}`,
        );
      },
    });
    use({
      name: 'trace',
      headers: ['traceparent'],
      kinds: ['infer'],
      enter: async (exchange) => {
        await new Promise((resolve) => setImmediate(resolve));
        seen.push(exchange.header('traceparent') ?? 'none');
      },
    });
    use({
      name: 'outcomes',
      kinds: ['infer'],
      end: ({
        outcome,
        rows,
        bytesIn,
        arrivedAt,
        startedAt,
        doneAt,
        writtenAt,
        servable,
        model,
      }) => {
        outcomes.push(outcome!);
        if (outcome !== 'OK') return;
        expect([rows, model, servable?.name]).toEqual([1, 'echo', 'echo']);
        expect(bytesIn).toBeGreaterThanOrEqual(0);
        expect(
          [startedAt - arrivedAt, doneAt - startedAt, writtenAt - doneAt].every((t) => t >= 0),
        ).toBe(true);
      },
    });
    for (const { ask, hot, name, codes } of transports.list) {
      for (let i = 0; i < 3; i++) {
        const id = traceparent();
        const before = hot?.() ?? 0;
        const headers = { authorization: 'Bearer good', traceparent: id };
        const told = await ask({ model: 'echo', inputs, headers });
        expect([name, told.words, told.values]).toEqual([
          name,
          '',
          [{ [Object.keys(told.values[0]!)[0]!]: [1, 2] }],
        ]);
        expect(seen.at(-1)).toBe(codes === 'error' ? 'none' : id);
        if (hot) expect(hot() - before).toBe(1);
      }
      if (codes === 'error') continue;
      const denied = await ask({ model: 'echo', inputs, headers: { authorization: 'Bearer bad' } });
      expect(denied.words).toBe('not with Bearer bad');
      const nobody = await ask({ model: 'echo', inputs });
      expect(nobody.words).toBe('not with nothing');
      if (codes === 'http') expect([denied.code, nobody.code]).toEqual([403, 401]);
      if (codes === 'grpc') expect([denied.code, nobody.code]).toEqual([7, 16]);
    }
    const count = transports.list.length;
    const tally = (wanted: string): number => outcomes.filter((each) => each === wanted).length;
    expect([tally('OK'), tally('DENIED'), tally('UNAUTHENTICATED')]).toEqual([
      3 * count,
      count - 1,
      count - 1,
    ]);
    expect(seen.length).toBe(3 * count);
  });

  it('gives the answer headers of its own, errors too', async () => {
    let refuse = false;
    use({
      name: 'mark',
      kinds: ['infer'],
      enter(exchange) {
        exchange.setHeader('X-Request-Mark', 'seen');
        exchange.setHeader('Set-Cookie', 'a=1');
        exchange.setHeader('Set-Cookie', 'b=2');
        if (refuse) throw new TercelError('QUOTA', 'no more today');
      },
    });
    for (refuse of [false, true]) {
      for (const { ask, codes } of transports.list) {
        const told = await ask({ model: 'echo', inputs });
        expect(told.words).toBe(refuse ? 'no more today' : '');
        if (codes === 'http') expect(told.code).toBe(refuse ? 429 : 200);
        if (codes === 'http' || codes === 'grpc') {
          expect(told.headers['x-request-mark']).toBe('seen');
        }
        if (codes === 'http') {
          expect(told.headers['set-cookie']).toEqual(['a=1', 'b=2']);
        }
      }
    }
    use({
      name: 'splitter',
      kinds: ['infer'],
      enter: (exchange) => exchange.setHeader('x-a', 'b\r\nset-cookie: c'),
    });
    refuse = false;
    expect(await transports.list[0]!.ask({ model: 'echo', inputs })).toMatchObject({
      code: 400,
      words: 'header "x-a" cannot be sent',
    });
    removals.splice(1, 1)[0]!();
    for (const [name, words] of [
      ['Connection', `header "Connection" is the server's`],
      ['grpc-status', `header "grpc-status" is the server's`],
      ['trace-bin', 'header "trace-bin" cannot be sent'],
      ['x!y', 'header "x!y" cannot be sent'],
    ] as const) {
      use({
        name: 'meddler',
        kinds: ['infer'],
        enter: (exchange) => exchange.setHeader(name, 'a'),
      });
      for (const { ask } of transports.list) {
        expect((await ask({ model: 'echo', inputs })).words).toBe(words);
      }
      removals.pop()!();
    }
  });

  it('sees control, descriptions and health, and is asked for nothing that it did not want', async () => {
    const kinds: string[] = [];
    const asked: string[] = [];
    use({ name: 'all', end: ({ kind, operation }) => void kinds.push(`${kind} ${operation}`) });
    use({ name: 'control', kinds: ['control'], enter: ({ kind }) => void asked.push(kind) });
    const base = `http://127.0.0.1:${transports.port}`;
    for (const [path, method = 'GET'] of [
      ['/v2/health/live'],
      ['/v2/models/echo'],
      ['/v2/repository/index', 'POST'],
      ['/v2/logging'],
      ['/v1/models/echo'],
      ['/nowhere'],
    ]) {
      await (await fetch(`${base}${path}`, { method })).text();
    }
    expect(kinds).toEqual([
      'health GET /v2/health/live',
      'describe GET /v2/models/echo',
      'control POST /v2/repository/index',
      'control GET /v2/logging',
      'describe GET /v1/models/echo',
      'describe GET /nowhere',
    ]);
    expect(asked).toEqual(['control', 'control']);
  });

  it('that fails at the end is only logged, and one taken away sees nothing more', async () => {
    const logged = vi.spyOn(console, 'error').mockImplementation(() => {});
    const remove = engine.use({
      name: 'broken',
      end() {
        throw new Error('at the end');
      },
    });
    const [{ ask }] = transports.list as [(typeof transports.list)[number]];
    expect((await ask({ model: 'echo', inputs })).code).toBe(200);
    expect(logged.mock.calls[0]![0]).toContain('"broken"');
    logged.mockClear();
    remove();
    remove();
    expect((await ask({ model: 'echo', inputs })).code).toBe(200);
    expect(logged).not.toHaveBeenCalled();
    logged.mockRestore();
  });

  it('that never lets a request in is not waited for without end', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    try {
      use({ name: 'endless', enter: () => new Promise<void>(() => {}) });
      const asked = engine.infer('echo', inputs);
      const refused = expect(asked).rejects.toMatchObject({
        code: 'TIMEOUT',
        message: '"endless" did not let the request in within 30 s',
      });
      await vi.advanceTimersByTimeAsync(30_000);
      await refused;
    } finally {
      vi.useRealTimers();
    }
  });

  it('that has a program wait does not see what becomes of its buffers', async () => {
    let open!: () => void;
    const gate = new Promise<void>((resolve) => (open = resolve));
    use({ name: 'gate', enter: () => gate });
    const data = Float32Array.of(1, 2);
    const asked = engine.infer('echo', { x: { dtype: 'float32', shape: [1, 2], data } });
    data.fill(9);
    open();
    expect(Array.from((await asked)['y']!.data as Float32Array)).toEqual([1, 2]);
  });

  it.each([
    [undefined, 'expected an interceptor'],
    [{ enter() {} }, 'expected an interceptor'],
    [{ name: 'a', enter: 1 }, 'enter must be a function'],
    [{ name: 'a', kinds: ['infers'] }, 'kinds: expected infer, control, describe, health'],
  ])('that is none is refused: %#', (interceptor, message) => {
    expect(() => engine.use(interceptor as unknown as Interceptor)).toThrow(message);
  });
});

describe('on the wire', () => {
  const apps: App[] = [];
  const serve = async (): Promise<App> => {
    const app = createServer(engine) as unknown as App;
    apps.push(app);
    await app.listen({ host: '127.0.0.1', port: 0 });
    return app;
  };
  afterEach(async () => {
    await Promise.all(apps.splice(0).map((app) => app.close()));
  });

  it('finds the values of headers wherever they stand, and however they differ', async () => {
    const seen: (string | undefined)[][] = [];
    use({
      name: 'reader',
      headers: ['traceparent', 'authorization'],
      kinds: ['infer'],
      enter: (e) => void seen.push([e.header('traceparent'), e.header('Authorization')]),
    });
    const app = await serve();
    const socket = await connect(app);
    const heads: string[][] = [
      ['traceparent: one', 'authorization: a'],
      ['traceparent: two', 'authorization: b'],
      ['traceparent:   three  ', 'Authorization: a longer one'],
      ['Authorization: c', 'traceparent: four'],
      ['x-other: 1', 'traceparent: five'],
      ['x-other: 1', 'traceparent: six'],
      [],
      ['traceparent:'],
      ['authorization: d', 'x-other: traceparent'],
    ];
    for (const headers of heads) {
      socket.write(request({ headers }));
      await next(socket, 1);
    }
    expect(seen).toEqual([
      ['one', 'a'],
      ['two', 'b'],
      ['three', 'a longer one'],
      ['four', 'c'],
      ['five', undefined],
      ['six', undefined],
      [undefined, undefined],
      ['', undefined],
      [undefined, 'd'],
    ]);
    expect(app.hotRequests).toBe(heads.length);
    // Twice is for Node to join: the connection goes there.
    socket.write(request({ headers: ['traceparent: a', 'traceparent: b', 'Connection: close'] }));
    await all(socket);
    expect(seen.at(-1)).toEqual(['a, b', undefined]);
  });

  it('reads no request by the lengths of another, also where they are asked for', async () => {
    const seen: (string | undefined)[] = [];
    const names = ['content-length', 'inference-header-content-length', 'host', 'connection'];
    use({
      name: 'reader',
      headers: [...names, 'traceparent'],
      kinds: ['infer'],
      enter: (e) => void seen.push(e.header('content-length')),
    });
    const app = await serve();
    const socket = await connect(app);
    const sizes = [1, 5, 1, 7, 7, 2];
    for (const [i, rows] of sizes.entries()) {
      const sent = request({ rows, value: i, headers: [`traceparent: ${i}`] });
      socket.write(sent);
      const [answer] = await next(socket, 1);
      expect([answer!.status, first(answer!)]).toEqual([200, i]);
      expect(seen.at(-1)).toBe(
        /Content-Length: (\d+)\r\ntraceparent/.exec(sent.toString('latin1'))![1],
      );
    }
    expect(app.hotRequests).toBe(sizes.length);
    socket.destroy();
  });

  it('takes values that are no header for what they are', async () => {
    const seen: (string | undefined)[] = [];
    use({
      name: 'reader',
      headers: ['traceparent'],
      kinds: ['infer'],
      enter: (e) => void seen.push(e.header('traceparent')),
    });
    for (const value of ['a\nb', 'a\0b', 'a\x7fb', 'a\rb']) {
      const app = await serve();
      const socket = await connect(app);
      socket.write(request({ headers: ['traceparent: fine'] }));
      await next(socket, 1);
      // Behind a head that was read, which is the same but for this.
      socket.write(request({ headers: [`traceparent: ${value}`] }));
      expect((await all(socket))[0]!.status).toBe(400);
    }
    expect(seen).toEqual(['fine', 'fine', 'fine', 'fine']);
  });

  it('waits with a body that is still to come, and ends with the client', async () => {
    let waiting: (() => void)[] = [];
    const ends: (string | undefined)[] = [];
    use({
      name: 'gate',
      kinds: ['infer'],
      enter: () => new Promise<void>((resolve) => waiting.push(resolve)),
      end: ({ outcome }) => void ends.push(outcome),
    });
    const open = async (): Promise<void> => {
      while (waiting.length === 0) await new Promise((resolve) => setTimeout(resolve, 2));
      for (const resolve of waiting.splice(0)) resolve();
    };
    const app = await serve();
    const large = request({ rows: 20_000, value: 7 });
    for (const cut of [large.length, large.length - 10, 600, 330]) {
      const socket = await connect(app);
      socket.write(large.subarray(0, cut));
      while (waiting.length === 0) await new Promise((resolve) => setTimeout(resolve, 2));
      socket.write(large.subarray(cut));
      socket.write(request({ value: 8 }));
      await open();
      const answers = next(socket, 1);
      expect((await answers)[0]!.status).toBe(200);
      await open();
      await next(socket, 1);
      socket.destroy();
    }
    const gone = await connect(app);
    gone.write(request());
    while (waiting.length === 0) await new Promise((resolve) => setTimeout(resolve, 2));
    gone.destroy();
    while (ends.length < 9) await new Promise((resolve) => setTimeout(resolve, 2));
    waiting = [];
    expect(ends).toEqual([...Array<string>(8).fill('OK'), 'CANCELLED']);
  });

  it('refuses a request before its body, and goes on with the next where it can', async () => {
    let refuse = true;
    use({
      name: 'refusal',
      kinds: ['infer'],
      enter() {
        if (refuse) throw new TercelError('DENIED', 'no');
      },
    });
    const app = await serve();
    const socket = await connect(app);
    socket.write(request());
    expect((await next(socket, 1))[0]!.status).toBe(403);
    refuse = false;
    socket.write(request());
    expect((await next(socket, 1))[0]!.status).toBe(200);
    refuse = true;
    // The rest of the body is nobody's.
    socket.write(request({ rows: 20_000 }).subarray(0, 1000));
    const [answer] = await all(socket);
    expect([answer!.status, answer!.headers['connection']]).toEqual([403, 'close']);
    const last = await connect(app);
    last.write(request(closing));
    expect((await all(last)).map(({ status }) => status)).toEqual([403]);
  });
});
