// The client against the server, on loopback.
import { spawnSync } from 'node:child_process';
import { readdirSync, mkdtempSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import type { FastifyInstance } from 'fastify';
import { createEngine, createServer, type Engine, type Tensor } from 'tercel';
import { Client, OverloadError, ResponseError, TimeoutError } from 'tercel/client';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { identity, slow } from '../support/models.js';
import { PATIENCE_MS } from '../support/wait.js';

const root = fileURLToPath(new URL('../..', import.meta.url));
let engine: Engine;
let app: FastifyInstance;
let url: string;

const values: Record<string, [code: number, tensor: Tensor]> = {
  float32: [1, { dtype: 'float32', shape: [2, 1], data: Float32Array.of(0.1, -3e38) }],
  float64: [11, { dtype: 'float64', shape: [1, 2], data: Float64Array.of(0.1, 1e308) }],
  int8: [3, { dtype: 'int8', shape: [1, 2], data: Int8Array.of(-128, 127) }],
  int64: [7, { dtype: 'int64', shape: [1, 2], data: BigInt64Array.of(-5n, 2n ** 53n - 1n) }],
  uint64: [13, { dtype: 'uint64', shape: [1, 1], data: BigUint64Array.of(7n) }],
  bool: [9, { dtype: 'bool', shape: [1, 2], data: Uint8Array.of(0, 1) }],
  string: [8, { dtype: 'string', shape: [1, 2], data: ['', 'ü"\n'] }],
};

beforeAll(async () => {
  engine = createEngine();
  for (const [name, [code]] of Object.entries(values)) {
    await engine.load(name, identity(code, ['n', 'm']));
  }
  await engine.load('a b/ü', identity(1, ['n', 'm']));
  await engine.load('slow', slow(), { lanes: 1, maxQueue: 1, inline: 'never' });
  app = createServer(engine, { allowSharedMemory: true });
  url = await app.listen({ host: '127.0.0.1', port: 0 });
});
afterAll(async () => {
  await app.close();
  await engine.close();
});

const slowly = (rounds: bigint): Record<string, Tensor> => ({
  x: { dtype: 'float32', shape: [64, 64], data: new Float32Array(4096) },
  rounds: { dtype: 'int64', shape: [], data: BigInt64Array.of(rounds) },
});

describe.each([true, false])('with binary %s', (binary) => {
  it.each(Object.keys(values))('%s comes back as it went', async (name) => {
    await using client = new Client(url, { binary });
    const [, x] = values[name]!;
    expect(await client.infer(name, { x })).toEqual({ y: x });
    expect((await client.infer(name, { x }, { outputs: ['y'] })).y).toEqual(x);
  });

  it('says what the server says', async () => {
    await using client = new Client(url, { binary });
    const [, x] = values['float32']!;
    await expect(client.infer('nobody', { x })).rejects.toMatchObject({
      name: 'ResponseError',
      status: 404,
      message: 'model "nobody" does not exist',
    });
    await expect(client.infer('int8', { x })).rejects.toMatchObject({ status: 400 });
    await expect(client.infer('float32', { x }, { outputs: ['z'] })).rejects.toThrow('"z"');
  });
});

it('knows ids, versions, classes and names that need escapes', async () => {
  await using client = new Client(url);
  const [, x] = values['float32']!;
  const result = await client.inferResult('a b/ü', { x }, { id: 'one', version: '1' });
  expect(result).toMatchObject({ model: 'a b/ü', version: '1', id: 'one', outputs: { y: x } });
  const { y } = await client.infer('float32', { x }, { outputs: { y: { classes: 1 } } });
  expect(y.data).toEqual(['0.100000:0', expect.stringMatching(/^-3\d+\.0+:0$/)]);
});

it('refuses what cannot be sent', async () => {
  expect(() => new Client('nowhere')).toThrow('"nowhere" is no URL');
  expect(() => new Client('ftp://x')).toThrow('not http');
  expect(() => new Client([])).toThrow('URL');
  expect(() => new Client([url, url], { sharedMemory: true })).toThrow('needs one server');
  expect(() => new Client(url, { retries: -1 })).toThrow('retries');
  expect(() => new Client(url, { timeoutMs: 0 })).toThrow('timeoutMs');
  await using client = new Client(url, { binary: false });
  const wrong: Tensor = { dtype: 'float32', shape: [2], data: Float32Array.of(1) };
  await expect(client.infer('float32', { x: wrong })).rejects.toThrow('holds 2 elements');
  const nan: Tensor = { dtype: 'float32', shape: [1], data: Float32Array.of(NaN) };
  await expect(client.infer('float32', { x: nan })).rejects.toThrow('element 0 is NaN');
});

it('asks about health, metadata, statistics and the repository', async () => {
  await using client = new Client(url);
  expect(await client.live()).toBe(true);
  expect(await client.ready()).toBe(true);
  expect(await client.modelReady('float32')).toBe(true);
  expect(await client.modelReady('nobody')).toBe(false);
  expect((await client.serverMetadata()).name).toBe('tercel');
  expect((await client.metadata('float32')).inputs[0]).toEqual({
    name: 'x',
    datatype: 'FP32',
    shape: [-1, -1],
  });
  expect(await client.config('float32')).toMatchObject({ backend: 'onnxruntime' });
  expect(await client.statistics('float32')).toHaveProperty('model_stats');
  expect((await client.index(true)).map(({ name }) => name)).toContain('float32');
  await expect(client.load('float32')).rejects.toBeInstanceOf(ResponseError);
});

describe('time and failure', () => {
  it('gives up in time, and when it is told to', async () => {
    await using client = new Client(url, { timeoutMs: 100 });
    // It would take half a minute.
    await expect(client.infer('slow', slowly(5_000_000n))).rejects.toBeInstanceOf(TimeoutError);
    const signal = AbortSignal.timeout(50);
    const reason = await client
      .infer('slow', slowly(5_000_000n), { signal, timeoutMs: PATIENCE_MS })
      .catch((error: unknown) => error);
    expect(reason).toBe(signal.reason);
    // Both runs ended with their clients: the one lane is free.
    await client.infer('slow', slowly(1n), { timeoutMs: PATIENCE_MS });
  });

  it('goes to the next server when one is gone, and comes back', async () => {
    const spare = createServer(engine);
    const spareUrl = await spare.listen({ host: '127.0.0.1', port: 0 });
    const first = createServer(engine);
    const firstUrl = await first.listen({ host: '127.0.0.1', port: 0 });
    await using client = new Client([firstUrl, spareUrl]);
    const [, x] = values['float32']!;
    await client.infer('float32', { x });
    await first.close();
    for (let i = 0; i < 5; i++) expect(await client.infer('float32', { x })).toEqual({ y: x });
    const back = createServer(engine);
    await back.listen({ host: '127.0.0.1', port: Number(new URL(firstUrl).port) });
    await new Promise((resolve) => setTimeout(resolve, 250));
    await spare.close();
    expect(await client.infer('float32', { x })).toEqual({ y: x });
    await back.close();
    await expect(client.infer('float32', { x })).rejects.toBeInstanceOf(OverloadError);
  });

  it('leaves a server alone that does not answer', async () => {
    let asked = 0;
    const silent = net.createServer((socket) => socket.once('data', () => asked++));
    await new Promise<void>((resolve) => silent.listen(0, '127.0.0.1', resolve));
    const { port } = silent.address() as net.AddressInfo;
    await using client = new Client([`http://127.0.0.1:${port}`, url], { timeoutMs: 500 });
    const [, x] = values['float32']!;
    await expect(client.infer('float32', { x })).rejects.toBeInstanceOf(TimeoutError);
    for (let i = 0; i < 3; i++) {
      expect(await client.infer('float32', { x }, { timeoutMs: PATIENCE_MS })).toEqual({ y: x });
    }
    expect(asked).toBe(1);
    silent.close();
  });

  it('goes to another server at a burst of overload, and comes back soon', async () => {
    let refusing = true;
    const refuser = createServer(engine);
    refuser.addHook('onRequest', (_request, reply, done) => {
      if (refusing) void reply.code(503).send({ error: 'busy' });
      done();
    });
    const other = await refuser.listen({ host: '127.0.0.1', port: 0 });
    await using client = new Client([other, url], { retries: 3 });
    const [, x] = values['float32']!;
    const all = Array.from({ length: 16 }, () => client.infer('float32', { x }));
    for (const one of await Promise.all(all)) expect(one).toEqual({ y: x });
    refusing = false;
    // One rest for all of them: a tenth of a second.
    await new Promise((resolve) => setTimeout(resolve, 150));
    await using alone = new Client([other, 'http://127.0.0.1:9'], { retries: 1 });
    expect(await alone.infer('float32', { x })).toEqual({ y: x });
    await refuser.close();
  });

  it('repeats what may be repeated, and only that', async () => {
    // A listener that takes requests and hangs up on the first ones.
    let asked = 0;
    const hangUp = net.createServer((socket) => {
      socket.once('data', () => {
        asked++;
        socket.destroy();
      });
    });
    await new Promise<void>((resolve) => hangUp.listen(0, '127.0.0.1', resolve));
    const { port } = hangUp.address() as net.AddressInfo;
    await using client = new Client(`http://127.0.0.1:${port}`, { retries: 2 });
    const [, x] = values['float32']!;
    await expect(client.infer('float32', { x })).rejects.toThrow('no answer from');
    expect(asked).toBe(3);
    asked = 0;
    await expect(client.load('float32')).rejects.toThrow('no answer from');
    expect(asked).toBe(1);
    hangUp.close();
  });

  it('waits out an overload', async () => {
    await using client = new Client(url, { retries: 6 });
    // One runs, one waits; the third is refused until they are done.
    const all = Array.from({ length: 4 }, () => client.infer('slow', slowly(2000n)));
    await Promise.all(all);
    await using hasty = new Client(url, { retries: 0 });
    const refused = Array.from({ length: 6 }, () => hasty.infer('slow', slowly(20_000n)));
    const results = await Promise.allSettled(refused);
    const reasons = results.flatMap((r) => (r.status === 'rejected' ? [r.reason as unknown] : []));
    expect(reasons.length).toBeGreaterThan(0);
    for (const reason of reasons) expect(reason).toMatchObject({ status: 503, code: 'OVERLOAD' });
  });
});

describe.runIf(process.platform === 'linux')('shared memory', () => {
  const large = (n: number): Tensor => ({
    dtype: 'float32',
    shape: [1, n],
    data: Float32Array.from({ length: n }, (_, i) => i),
  });
  const mine = (): string[] =>
    readdirSync('/dev/shm').filter((name) => name.startsWith(`tercel-client-${process.pid}-`));

  it('carries large inputs, and is given back', async () => {
    const client = new Client(url, { sharedMemory: true, sharedMemoryBytes: 1_000_000 });
    const before = await client.statistics('float32');
    // More at once than fits: the rest is sent.
    const all = Array.from({ length: 8 }, () => client.infer('float32', { x: large(50_000) }));
    // By bytes: comparing elements takes a test's time.
    const bytes = ({ data }: Tensor): Buffer => Buffer.from((data as Float32Array).buffer);
    for (const { y } of await Promise.all(all)) {
      expect(bytes(y!).equals(bytes(large(50_000)))).toBe(true);
    }
    for (let i = 0; i < 20; i++) {
      const { y } = await client.infer('float32', { x: large(240_000) });
      expect(bytes(y!).equals(bytes(large(240_000)))).toBe(true);
    }
    expect(before).not.toEqual(await client.statistics('float32'));
    expect(mine()).toEqual([]); // nothing is left behind, however the process ends
    const regions = (): Promise<unknown[]> =>
      fetch(`${url}/v2/systemsharedmemory/status`).then((r) => r.json() as Promise<unknown[]>);
    expect(await regions()).toHaveLength(1);
    await client.close();
    expect(mine()).toEqual([]);
    expect(await regions()).toEqual([]);
  });

  it('survives a server that was started anew', async () => {
    const first = createServer(engine, { allowSharedMemory: true });
    const place = await first.listen({ host: '127.0.0.1', port: 0 });
    await using client = new Client(place, { sharedMemory: 'auto', retries: 5 });
    await client.infer('float32', { x: large(50_000) });
    await first.close();
    const second = createServer(engine, { allowSharedMemory: true });
    await second.listen({ host: '127.0.0.1', port: Number(new URL(place).port) });
    for (let i = 0; i < 3; i++) {
      const { y } = await client.infer('float32', { x: large(50_000) });
      expect(y!.shape).toEqual([1, 50_000]);
    }
    const regions = await fetch(`${place}/v2/systemsharedmemory/status`);
    expect(await regions.json()).toHaveLength(1);
    await second.close();
  });

  it("is sent instead where the server has none, with 'auto'", async () => {
    const without = createServer(engine);
    const other = await without.listen({ host: '127.0.0.1', port: 0 });
    await using automatic = new Client(other, { sharedMemory: 'auto' });
    expect((await automatic.infer('float32', { x: large(50_000) })).y).toEqual(large(50_000));
    await using strict = new Client(other, { sharedMemory: true });
    await expect(strict.infer('float32', { x: large(50_000) })).rejects.toThrow(
      'without --allow-shared-memory',
    );
    expect(mine()).toEqual([]);
    await without.close();
  });
});

it('tercel client types writes what type-checks', async () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'tercel-types-'));
  const file = path.join(folder, 'models.ts');
  const { spawn } = await import('node:child_process');
  const run = (...args: string[]): Promise<{ code: number | null; text: string }> =>
    new Promise((resolve) => {
      const child = spawn(process.execPath, [path.join(root, 'dist/cli/main.js'), ...args]);
      let text = '';
      child.stdout.on('data', (chunk: Buffer) => (text += chunk.toString()));
      child.stderr.on('data', (chunk: Buffer) => (text += chunk.toString()));
      child.on('close', (code) => resolve({ code, text }));
    });
  const wrote = await run('client', 'types', url, '-o', file);
  expect(wrote).toEqual({ code: 0, text: `wrote 9 models to ${file}\n` });
  const one = await run('client', 'types', url, '--model', 'a b/ü');
  expect(one.text).toContain('"a b/ü": {');
  expect(one.text).toContain("/** FP32 [?, ?] */\n      x: Tensor<'float32'>;");
  const gone = await run('client', 'types', 'http://127.0.0.1:9');
  expect(gone.code).toBe(1);
  expect(gone.text).toContain('no answer from http://127.0.0.1:9');
  writeFileSync(path.join(folder, 'package.json'), '{"type":"module"}');
  writeFileSync(
    path.join(folder, 'use.ts'),
    `import { Client } from 'tercel/client';
import type { Models } from './models.js';
const client = new Client<Models>('${url}');
const x = { dtype: 'int64', shape: [1, 1], data: BigInt64Array.of(1n) } as const;
const { y } = await client.infer('int64', { x });
const first: bigint = y.data[0]!;
// @ts-expect-error an input of another type
await client.infer('float32', { x });
// @ts-expect-error no such model
await client.infer('nobody', { x });
console.log(first);
`,
  );
  writeFileSync(
    path.join(folder, 'tsconfig.json'),
    JSON.stringify({
      extends: path.join(root, 'tsconfig.json'),
      compilerOptions: {
        noEmit: true,
        typeRoots: [path.join(root, 'node_modules/@types')],
        paths: {
          tercel: [path.join(root, 'dist/index.d.ts')],
          'tercel/client': [path.join(root, 'dist/client/index.d.ts')],
        },
      },
      include: [path.join(folder, '*.ts')],
    }),
  );
  const { stdout } = spawnSync(
    process.execPath,
    [path.join(root, 'node_modules/typescript/bin/tsc'), '-p', folder],
    { encoding: 'utf8' },
  );
  expect(stdout).toBe('');
});
