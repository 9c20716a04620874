// The load generator: what ends it.
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import { ModelError } from 'tercel';
import { HttpSubject, type Window } from 'tercel/measure';
import { afterAll, beforeAll, expect, it } from 'vitest';

let server: http.Server;
let url: string;

beforeAll(async () => {
  server = http.createServer((_request, response) => response.end('ok')).listen(0, '127.0.0.1');
  await once(server, 'listening');
  url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});
afterAll(() => {
  server.close();
  server.closeAllConnections();
});

const request = { path: '/', headers: {}, body: [] };
const window = (durationMs: number, signal = new AbortController().signal): Window => ({
  arrivals: { kind: 'closed', concurrency: 4 },
  durationMs,
  drainMs: 100,
  seed: 1,
  signal,
});

it('ends when it is told to', async () => {
  const stop = new AbortController();
  setTimeout(() => stop.abort(), 200);
  const subject = new HttpSubject(new URL(url), [request]);
  const result = await subject.run(window(3_600_000, stop.signal));
  expect(result.completed).toBeGreaterThan(0);
  expect(result.errors).toEqual({});
});

it('ends with the worker that it runs in', async () => {
  const program = `
    import { parentPort } from 'node:worker_threads';
    import { HttpSubject } from ${JSON.stringify(new URL('../../dist/measure/index.js', import.meta.url).href)};
    const subject = new HttpSubject(new URL(${JSON.stringify(url)}), [{ path: '/', headers: {}, body: [] }]);
    const { signal } = new AbortController();
    const arrivals = { kind: 'closed', concurrency: 4 };
    const load = subject.run({ arrivals, durationMs: 3_600_000, drainMs: 100, seed: 1, signal });
    parentPort.postMessage('begun');
    await load;`;
  const source = new URL(`data:text/javascript,${encodeURIComponent(program)}`);
  for (let i = 0; i < 10; i++) {
    const worker = new Worker(source);
    await once(worker, 'message');
    await sleep(5 * i);
    expect(await worker.terminate()).toBe(1);
  }
});

it('says that nobody is there', async () => {
  const subject = new HttpSubject(new URL('http://127.0.0.1:1'), [request]);
  const error: unknown = await subject.run(window(100)).catch((reason: unknown) => reason);
  expect(error).toBeInstanceOf(ModelError);
  expect((error as Error).message).toContain('cannot connect to 127.0.0.1:1');
});
