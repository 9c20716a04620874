// Listeners of other kinds are the same server: TLS and Unix sockets, on the fast path.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import http from 'node:http';
import https from 'node:https';
import type { AddressInfo } from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import grpc from '@grpc/grpc-js';
import protoLoader from '@grpc/proto-loader';
import { createEngine, createGrpcServer, createServer, type Engine, type Peer } from 'tercel';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { identity } from '../../support/models.js';
import type { App } from '../../support/wire.js';

let folder: string;
let engine: Engine;
const peers: Peer[] = [];
beforeAll(async () => {
  folder = mkdtempSync(path.join(os.tmpdir(), 'tercel-listeners-'));
  engine = createEngine();
  await engine.load('echo', identity(1, ['n']));
  engine.use({ name: 'peers', enter: ({ peer }) => void peers.push(peer) });
});
afterAll(async () => {
  await engine.close();
  rmSync(folder, { recursive: true });
});

const body = JSON.stringify({
  inputs: [{ name: 'x', shape: [2], datatype: 'FP32', data: [1, 2] }],
});

async function ask(request: http.ClientRequest): Promise<unknown> {
  request.end(body);
  const response = await new Promise<http.IncomingMessage>((resolve, reject) =>
    request.on('response', resolve).on('error', reject),
  );
  let text = '';
  for await (const chunk of response) text += String(chunk);
  return (JSON.parse(text) as { outputs: { data: unknown }[] }).outputs[0]!.data;
}

const options = {
  method: 'POST',
  path: '/v2/models/echo/infer',
  headers: { 'content-length': Buffer.byteLength(body) },
};

interface Answer {
  raw_output_contents: Buffer[];
}

function inferBy(address: string, credentials: grpc.ChannelCredentials): Promise<number[]> {
  const schema = fileURLToPath(new URL('../../../schema', import.meta.url));
  const loaded = protoLoader.loadSync('inference.proto', { includeDirs: [schema], keepCase: true });
  const Client = grpc.makeGenericClientConstructor(
    loaded['inference.GRPCInferenceService'] as unknown as grpc.ServiceDefinition,
    'inference',
  );
  const client = new Client(address, credentials, {
    'grpc.ssl_target_name_override': 'localhost',
  });
  type Call = (request: object, done: (error: Error | null, answer: Answer) => void) => void;
  return new Promise((resolve, reject) =>
    (client as unknown as Record<string, Call>)['ModelInfer']!(
      {
        model_name: 'echo',
        inputs: [{ name: 'x', datatype: 'FP32', shape: [2] }],
        raw_input_contents: [Buffer.from(Float32Array.of(1, 2).buffer)],
      },
      (error, answer) => {
        client.close();
        if (error) reject(error);
        else {
          const [raw] = answer.raw_output_contents;
          resolve([...new Float32Array(Uint8Array.from(raw!).buffer)]);
        }
      },
    ),
  );
}

describe('a Unix socket', () => {
  it('has HTTP, and control is open on it', async () => {
    const socketPath = path.join(folder, 'http.sock');
    const app = createServer(engine) as unknown as App;
    await app.listen({ path: socketPath });
    const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
    for (let i = 0; i < 3; i++) {
      expect(await ask(http.request({ ...options, socketPath, agent }))).toEqual([1, 2]);
    }
    expect(app.hotRequests).toBe(3);
    expect(peers.at(-1)).toMatchObject({ address: '', loopback: true, tls: false });
    const index = await new Promise<number | undefined>((resolve) =>
      http
        .request({ socketPath, agent, method: 'POST', path: '/v2/repository/index' }, (response) =>
          resolve(response.resume().statusCode),
        )
        .end(),
    );
    expect(index).toBe(200);
    agent.destroy();
    await app.close();
  });

  it('has gRPC', async () => {
    const server = createGrpcServer(engine);
    const socketPath = path.join(folder, 'grpc.sock');
    expect(await server.listen({ path: socketPath })).toBe(0);
    expect(await inferBy(`unix:${socketPath}`, grpc.credentials.createInsecure())).toEqual([1, 2]);
    expect(peers.at(-1)).toMatchObject({ loopback: true, tls: false });
    await server.close();
  });
});

describe('TLS', () => {
  let key: Buffer;
  let cert: Buffer;
  beforeAll(() => {
    const files = ['key.pem', 'cert.pem'].map((name) => path.join(folder, name)) as [
      string,
      string,
    ];
    const made = spawnSync(
      'openssl',
      [
        ...['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '1'],
        ...['-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost'],
        ...['-keyout', files[0], '-out', files[1]],
      ],
      { encoding: 'utf8' },
    );
    if (made.status !== 0) throw new Error(`openssl is needed: ${made.stderr || made.error}`);
    [key, cert] = files.map((file) => readFileSync(file)) as [Buffer, Buffer];
  });

  it('has HTTP, on the fast path', async () => {
    const app = createServer(engine, {
      httpServer: (listener) => https.createServer({ key, cert }, listener),
    }) as unknown as App;
    await app.listen({ host: '127.0.0.1', port: 0 });
    const { port } = app.server.address() as AddressInfo;
    const agent = new https.Agent({ keepAlive: true, maxSockets: 1, ca: cert });
    const target = { ...options, host: '127.0.0.1', port, servername: 'localhost', agent };
    for (let i = 0; i < 3; i++) expect(await ask(https.request(target))).toEqual([1, 2]);
    expect(app.hotRequests).toBe(3);
    expect(peers.at(-1)).toMatchObject({ address: '127.0.0.1', loopback: true, tls: true });
    // Anything else is for Node, on the same connection.
    const live = await new Promise<number | undefined>((resolve, reject) =>
      https
        .get({ ...target, method: 'GET', path: '/v2/health/live', headers: {} }, (response) =>
          resolve(response.resume().statusCode),
        )
        .on('error', reject),
    );
    expect(live).toBe(200);
    expect(await ask(https.request(target))).toEqual([1, 2]);
    agent.destroy();
    await app.close();
  });

  it('has gRPC', async () => {
    const server = createGrpcServer(engine);
    const credentials = grpc.ServerCredentials.createSsl(null, [
      { private_key: key, cert_chain: cert },
    ]);
    const port = await server.listen({ port: 0, credentials });
    const address = `127.0.0.1:${port}`;
    expect(await inferBy(address, grpc.credentials.createSsl(cert))).toEqual([1, 2]);
    expect(peers.at(-1)).toMatchObject({ address: '127.0.0.1', loopback: true, tls: true });
    await server.close();
  });
});
