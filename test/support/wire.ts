// HTTP below any library, for tests of connections.
import { once } from 'node:events';
import net, { type AddressInfo } from 'node:net';
import type { FastifyInstance } from 'fastify';
import { createEngine, createServer, type Engine, type ServerOptions } from 'tercel';
import { afterAll, afterEach, beforeAll, expect } from 'vitest';
import { identity, slow } from './models.js';

export const INFER = '/v2/models/echo/infer';
const FLOAT = 1;

export type App = FastifyInstance & { hotRequests: number };

/** An engine of the file's tests with the models `echo` and `slow`, and servers that end with each test. */
export function servers(): {
  readonly engine: Engine;
  readonly apps: FastifyInstance[];
  readonly serve: (options?: ServerOptions) => Promise<App>;
} {
  let engine: Engine;
  const apps: FastifyInstance[] = [];
  beforeAll(async () => {
    engine = createEngine();
    await engine.load('echo', identity(FLOAT, ['n', 2]), {
      batching: { maxBatch: 4 },
      inline: 'never',
    });
    await engine.load('slow', slow(), { lanes: 1 });
  });
  afterAll(() => engine.close());
  afterEach(async () => {
    await Promise.all(apps.splice(0).map((app) => app.close()));
  });
  return {
    get engine() {
      return engine;
    },
    apps,
    serve: async (options = {}) => {
      const app = createServer(engine, options);
      apps.push(app);
      await app.listen({ host: '127.0.0.1', port: 0 });
      return app as App;
    },
  };
}

export async function connect(app: FastifyInstance): Promise<net.Socket> {
  const socket = net.connect({
    host: '127.0.0.1',
    port: (app.server.address() as AddressInfo).port,
  });
  await once(socket, 'connect');
  socket.setNoDelay(true);
  return socket;
}

export interface Request {
  url?: string;
  rows?: number;
  value?: number;
  headers?: string[];
  lead?: string;
}

/** An infer request on echo, in bytes. */
export function request({
  url = INFER,
  rows = 1,
  value = 3,
  headers = [],
  lead,
}: Request = {}): Buffer {
  const data = Buffer.from(new Float32Array(rows * 2).fill(value).buffer);
  const json = JSON.stringify({
    inputs: [
      {
        name: 'x',
        shape: [rows, 2],
        datatype: 'FP32',
        parameters: { binary_data_size: data.length },
      },
    ],
    parameters: { binary_data_output: true },
  });
  const head = [
    lead ?? `POST ${url} HTTP/1.1`,
    'Host: localhost',
    `Inference-Header-Content-Length: ${json.length}`,
    `Content-Length: ${json.length + data.length}`,
    ...headers,
  ];
  return Buffer.concat([Buffer.from(`${head.join('\r\n')}\r\n\r\n${json}`, 'latin1'), data]);
}

export const closing = { headers: ['Connection: close'] };

export interface Answer {
  status: number;
  headers: Record<string, string>;
  body: Buffer;
}

/** Takes answers off what a connection brought. */
function parse(bytes: Buffer): { answers: Answer[]; rest: Buffer } {
  const answers: Answer[] = [];
  for (;;) {
    const end = bytes.indexOf('\r\n\r\n');
    if (end < 0) return { answers, rest: bytes };
    const [line, ...lines] = bytes.toString('latin1', 0, end).split('\r\n');
    const headers = Object.fromEntries(
      lines.map((text) => [
        text.slice(0, text.indexOf(':')).toLowerCase(),
        text.slice(text.indexOf(':') + 1).trim(),
      ]),
    );
    const status = Number(line!.split(' ')[1]);
    // Node's own refusals are chunked, and empty.
    const open = headers['transfer-encoding'] ? '0\r\n\r\n'.length : 0;
    const length = Number(headers['content-length'] ?? open);
    if (bytes.length < end + 4 + length) return { answers, rest: bytes };
    answers.push({ status, headers, body: bytes.subarray(end + 4, end + 4 + length) });
    bytes = bytes.subarray(end + 4 + length);
  }
}

/** All that comes until the server ends the connection. */
export async function all(socket: net.Socket): Promise<Answer[]> {
  const chunks: Buffer[] = [];
  socket.on('data', (chunk) => chunks.push(chunk)).resume();
  socket.on('error', () => {});
  if (!socket.closed) await once(socket, 'close');
  const { answers, rest } = parse(Buffer.concat(chunks));
  expect(rest.length).toBe(0);
  return answers;
}

/** The next so many answers. */
export async function next(socket: net.Socket, count: number): Promise<Answer[]> {
  let bytes = Buffer.alloc(0);
  for await (const [chunk] of onData(socket)) {
    bytes = Buffer.concat([bytes, chunk]);
    const { answers } = parse(bytes);
    if (answers.length >= count) return answers;
  }
  throw new Error('the connection ended');
}

async function* onData(socket: net.Socket): AsyncGenerator<[Buffer]> {
  for (;;) yield (await once(socket, 'data')) as [Buffer];
}

/** The first float of an answer's tensor. */
export function first({ headers, body }: Answer): number {
  return body.readFloatLE(Number(headers['inference-header-content-length']));
}

/** A request of the model `slow` that runs for `rounds` rounds. */
export function slowRequest(rounds: bigint, parameters?: object): Buffer {
  const json = JSON.stringify({
    inputs: [
      { name: 'x', shape: [64, 64], datatype: 'FP32', parameters: { binary_data_size: 16384 } },
      { name: 'rounds', shape: [], datatype: 'INT64', parameters: { binary_data_size: 8 } },
    ],
    ...(parameters && { parameters }),
  });
  const head =
    `POST /v2/models/slow/infer HTTP/1.1\r\nHost: a\r\nContent-Length: ${json.length + 16392}\r\n` +
    `Inference-Header-Content-Length: ${json.length}\r\n\r\n${json}`;
  return Buffer.concat([
    Buffer.from(head, 'latin1'),
    Buffer.alloc(16384),
    Buffer.from(BigInt64Array.of(rounds).buffer),
  ]);
}
