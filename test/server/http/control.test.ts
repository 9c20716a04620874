// The repository over HTTP: index, load, unload, configuration, statistics, and who may control.
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { FastifyInstance } from 'fastify';
import { createEngine, createServer, type Engine, type ServerOptions } from 'tercel';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { FLOAT } from '../../../models/onnx.js';
import { identity, lookup, slow, modelOf } from '../../support/models.js';

let folder: string;
let engine: Engine;
let app: FastifyInstance;
let base: string;

function write(file: string, content: string | Uint8Array): void {
  const full = path.join(folder, file);
  mkdirSync(path.dirname(full), { recursive: true });
  writeFileSync(full, content);
}

async function serve(options: ServerOptions = {}, host = '127.0.0.1'): Promise<void> {
  app = createServer(engine, options);
  base = await app.listen({ host, port: 0 });
}

interface Answer {
  status: number;
  json: Record<string, unknown> & { error?: string };
}
async function call(
  url: string,
  body?: unknown,
  headers: Record<string, string> = {},
): Promise<Answer> {
  const response = await fetch(base + url, {
    method: body === undefined ? 'GET' : 'POST',
    headers,
    ...(body !== undefined && { body: body === '' ? undefined : JSON.stringify(body) }),
  });
  const text = await response.text();
  return { status: response.status, json: (text ? JSON.parse(text) : {}) as Answer['json'] };
}

beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'tercel-control-'));
  engine = createEngine();
  write('echo/1/model.onnx', identity(FLOAT, ['n', 2]));
  write('echo/model.json', '{"batching": {"maxBatch": 4}, "inline": "never"}');
});
afterEach(async () => {
  await app.close();
  await engine.close();
  rmSync(folder, { recursive: true });
});

const infer = (rows = 1): unknown => ({
  inputs: [{ name: 'x', shape: [rows, 2], datatype: 'FP32', data: Array(rows * 2).fill(1) }],
});

describe('the repository extension', () => {
  it('lists, loads and unloads', async () => {
    write('late/3/model.onnx', identity(FLOAT, ['n', 2]));
    await engine.loadRepository(folder, { control: 'explicit', models: ['echo'] });
    await serve();
    expect((await call('/v2/repository/index', '')).json).toEqual([
      { name: 'echo', version: '1', state: 'READY', reason: '' },
      { name: 'late', version: '', state: 'UNAVAILABLE', reason: 'not loaded' },
    ]);
    expect((await call('/v2/repository/index', { ready: true })).json).toHaveLength(1);
    expect((await call('/v2/models/late/ready')).status).toBe(404);
    expect((await call('/v2/repository/models/late/load', {})).status).toBe(200);
    expect((await call('/v2/models/late/ready')).status).toBe(200);
    expect((await call('/v2/models/late/versions/3/infer', infer())).status).toBe(200);
    expect(
      (await call('/v2/repository/models/late/unload', { parameters: { unload_dependents: true } }))
        .status,
    ).toBe(200);
    expect((await call('/v2/models/late/infer', infer())).status).toBe(404);
    const failed = await call('/v2/repository/models/nope/load', {});
    expect(failed.status).toBe(400);
    expect(failed.json.error).toContain('model "nope" has no version');
    for (const [body, message] of [
      [{ parameters: { config: 3 } }, 'parameters.config: expected JSON in a string'],
      [{ parameters: { config: '{"lanes": 0}' } }, 'config of model "late": lanes: Too small'],
      [{ parameters: { 'file:1/model.onnx': '§' } }, 'expected base64'],
      [{ parameters: { 'file:1/model.onnx': 'AA==' } }, '"file:" needs "config"'],
      [{ parameters: { speed: 'high' } }, 'parameters["speed"] is not known'],
      [
        { parameters: { config: '{"customOpLibraries": ["/tmp/x.so"]}' } },
        'customOpLibraries cannot be given in a load call',
      ],
      [
        { parameters: { config: '{"providers": [{"name": "x", "library": "/tmp/x.so"}]}' } },
        'the library of provider "x" cannot be given in a load call',
      ],
      [
        {
          parameters: {
            config:
              '{"providers": [{"name": "tensorrt", "options": {"trt_extra_plugin_lib_paths": "/x"}}]}',
          },
        },
        'option "trt_extra_plugin_lib_paths" of provider "tensorrt" cannot be given',
      ],
      [
        {
          parameters: {
            config: '{"providers": [{"name": "webgpu", "options": {"dawnProcTable": "4096"}}]}',
          },
        },
        'option "dawnProcTable" of provider "webgpu" cannot be given',
      ],
      [
        { parameters: { config: '{"config": {"ep.webgpuexecutionprovider.dawnProcTable": "1"}}' } },
        'config entry "ep.webgpuexecutionprovider.dawnProcTable" cannot be given',
      ],
      [
        { parameters: { config: '{"gpu": {"engineCache": "/tmp/x"}}' } },
        'gpu.engineCache cannot be given in a load call',
      ],
      [
        { parameters: { config: '{"config": {"ep.context_file_path": "/tmp/x"}}' } },
        'config entry "ep.context_file_path" cannot be given in a load call',
      ],
      [{ parameters: { config: '{"file": "../../x.onnx"}' } }, 'is no name of a file'],
    ] as const) {
      const answer = await call('/v2/repository/models/late/load', body);
      expect(answer.status).toBe(400);
      expect(answer.json.error).toContain(message);
    }
    expect((await call('/v2/repository/index')).status).toBe(405);
  });

  it('loads bytes and a configuration in the call', async () => {
    await engine.loadRepository(folder, { control: 'explicit' });
    await serve();
    const bytes = Buffer.from(identity(FLOAT, ['n', 3])).toString('base64');
    const { status } = await call('/v2/repository/models/new/load', {
      parameters: {
        config:
          '{"name": "new", "backend": "onnxruntime", "max_batch_size": 8, "dynamic_batching": {}}',
        'file:5/model.onnx': bytes,
      },
    });
    expect(status).toBe(200);
    expect((await call('/v2/models/new/config')).json).toMatchObject({
      name: 'new',
      max_batch_size: 8,
      input: [{ name: 'x', data_type: 'TYPE_FP32', dims: [3] }],
      dynamic_batching: { max_queue_delay_microseconds: 0 },
    });
    expect((await call('/v2/models/new')).json['versions']).toEqual(['5']);
  });

  it('is for explicit control only', async () => {
    await engine.loadRepository(folder);
    await serve();
    const { status, json } = await call('/v2/repository/models/echo/unload', {});
    expect(status).toBe(400);
    expect(json.error).toBe(
      'explicit model load and unload are not allowed with model control "none"',
    );
  });
});

describe('who may control', () => {
  beforeEach(() => engine.loadRepository(folder, { control: 'explicit', models: ['*'] }));

  it('is nobody on a listener that is not loopback', async () => {
    await serve({}, '0.0.0.0');
    base = base.replace(/\/\/[^:]+:/, '//127.0.0.1:');
    for (const url of ['/v2/repository/index', '/v2/repository/models/echo/unload']) {
      const { status, json } = await call(url, {});
      expect(status).toBe(403);
      expect(json.error).toContain('control endpoints are closed');
    }
    expect((await call('/v2/models/echo/infer', infer())).status).toBe(200);
  });

  it('is whoever has the token', async () => {
    await serve({ adminToken: 'secret' }, '0.0.0.0');
    base = base.replace(/\/\/[^:]+:/, '//127.0.0.1:');
    const url = '/v2/repository/index';
    expect((await call(url, {})).status).toBe(401);
    expect((await call(url, {}, { authorization: 'Bearer wrong' })).status).toBe(401);
    expect((await call(url, {}, { authorization: 'Bearer secret' })).status).toBe(200);
  });

  it('is everybody with allowAdmin, and no web page on loopback', async () => {
    await serve({ allowAdmin: true }, '0.0.0.0');
    base = base.replace(/\/\/[^:]+:/, '//127.0.0.1:');
    expect((await call('/v2/repository/index', {})).status).toBe(200);
    await app.close();
    await serve();
    const url = '/v2/repository/index';
    expect((await call(url, {}, { origin: 'https://example.com' })).status).toBe(403);
    expect((await call(url, {}, { origin: 'http://localhost.example.com' })).status).toBe(403);
    expect((await call(url, {}, { origin: 'http://localhost:5173' })).status).toBe(200);
    expect(() => createServer(engine, { adminToken: '' })).toThrow('expected a token, got none');
  });
});

describe('statistics and configuration', () => {
  it('count what happened', async () => {
    await engine.loadRepository(folder);
    await serve();
    for (let i = 0; i < 3; i++) await call('/v2/models/echo/infer', infer(2));
    await call('/v2/models/echo/infer', { inputs: [] });
    const { json } = await call('/v2/models/echo/stats');
    const [stats] = json['model_stats'] as Record<string, Record<string, unknown>>[];
    expect(stats).toMatchObject({
      name: 'echo',
      version: '1',
      inference_count: 6,
      execution_count: 3,
      // The one whose input is missing failed.
      inference_stats: { success: { count: 3 }, fail: { count: 1 }, queue: { count: 3 } },
      batch_stats: [{ batch_size: 2, compute_infer: { count: 3 } }],
    });
    const success = stats!['inference_stats']!['success'] as { ns: number };
    expect(success.ns).toBeGreaterThan(1000);
    expect((await call('/v2/models/stats')).json).toEqual(
      (await call('/v2/models/echo/stats')).json,
    );
    expect((await call('/v2/models/echo/versions/1/stats')).status).toBe(200);
    expect((await call('/v2/models/nope/stats')).status).toBe(404);
    expect((await call('/v2/models/echo/config')).json).toMatchObject({
      max_batch_size: 4,
      platform: 'onnxruntime_onnx',
      version_policy: { latest: { num_versions: 1 } },
      output: [{ name: 'y', data_type: 'TYPE_FP32', dims: [2] }],
    });
  });

  it('are not ready before the models are', async () => {
    write('echo/1/model.onnx', slow());
    write('echo/model.json', '{"warmUp": false}');
    await serve();
    const loading = engine.loadRepository(folder);
    expect((await call('/v2/health/ready')).status).toBe(503);
    expect((await call('/v2/health/live')).status).toBe(200);
    await loading;
    expect((await call('/v2/health/ready')).status).toBe(200);
  });
});

/** A binary infer request, as a client sends it: answered ahead of the router. */
function binary(
  name: string,
  value: { header: object; data: Uint8Array; headers?: http.OutgoingHttpHeaders },
): Promise<{ status: number; headers: http.IncomingHttpHeaders; body: Buffer }> {
  const head = Buffer.from(JSON.stringify(value.header));
  const url = new URL(`/v2/models/${name}/infer`, base);
  return new Promise((resolve, reject) => {
    const request = http.request(
      url,
      {
        method: 'POST',
        headers: {
          'content-type': 'application/octet-stream',
          'inference-header-content-length': head.length,
          'content-length': head.length + value.data.length,
          ...value.headers,
        },
      },
      (response) => {
        const chunks: Buffer[] = [];
        response.on('data', (chunk: Buffer) => chunks.push(chunk));
        response.on('end', () =>
          resolve({
            status: response.statusCode!,
            headers: response.headers,
            body: Buffer.concat(chunks),
          }),
        );
      },
    );
    request.on('error', reject);
    request.end(Buffer.concat([head, value.data]));
  });
}

const header = (extra: object = {}): object => ({
  inputs: [{ name: 'x', shape: [1, 2], datatype: 'FP32', parameters: { binary_data_size: 8 } }],
  parameters: { binary_data_output: true },
  ...extra,
});
const data = new Uint8Array(Float32Array.of(3, 4).buffer);

describe('the hot route', () => {
  beforeEach(() => engine.loadRepository(folder));

  it('answers as the router would', async () => {
    const answers = [];
    for (const hotRoute of [true, false]) {
      await serve({ hotRoute });
      const list = [];
      for (const request of [
        { header: header(), data },
        { header: header(), data: new Uint8Array(Float32Array.of(5, 6).buffer) },
        { header: header({ id: 'seven' }), data },
        { header: header({ parameters: {} }), data },
        { header: header({ outputs: [{ name: 'y', parameters: { binary_data: true } }] }), data },
        { header: header({ outputs: [{ name: 'z' }] }), data },
        { header: header(), data: data.subarray(0, 4) },
        { header: { inputs: [{ name: 'x' }] }, data },
        { header: header(), data, headers: { 'inference-header-content-length': 3 } },
        {
          header: header({
            parameters: { priority: 1, timeout: 5_000_000, binary_data_output: true },
          }),
          data,
        },
      ]) {
        const { status, headers, body } = await binary('echo', request);
        list.push([
          status,
          headers['content-type'],
          headers['inference-header-content-length'],
          body.toString('latin1'),
        ]);
      }
      const missing = await binary('nope', { header: header(), data });
      list.push([missing.status, missing.body.toString()]);
      answers.push(list);
      // What is asked for as usual does not take the router's path, and with the router nothing else.
      expect((app as unknown as { hotRequests: number }).hotRequests).toBe(hotRoute ? 11 : 0);
      if (hotRoute) await app.close();
    }
    expect(answers[0]).toEqual(answers[1]);
    expect((answers[0]![0] as unknown[])[0]).toBe(200);
    expect((answers[0]![5] as unknown[])[0]).toBe(400);
  });

  it('says which model answered, where two take the same request', async () => {
    await engine.load('other', identity(FLOAT, ['n', 2]));
    await serve();
    for (const name of ['echo', 'other', 'echo']) {
      const { headers, body } = await binary(name, { header: header(), data });
      const length = Number(headers['inference-header-content-length']);
      expect(JSON.parse(body.toString('utf8', 0, length))).toMatchObject({ model_name: name });
    }
  });

  it('leaves requests to Fastify where a hook wants them', async () => {
    app = createServer(engine);
    const seen: string[] = [];
    app.addHook('onRequest', (request, reply, done) => {
      seen.push(request.url);
      if (request.headers.authorization) done();
      else void reply.status(401).send({ error: 'who are you?' });
    });
    base = await app.listen({ host: '127.0.0.1', port: 0 });
    expect((await binary('echo', { header: header(), data })).status).toBe(401);
    const allowed = await binary('echo', {
      header: header(),
      data,
      headers: { authorization: 'x' },
    });
    expect(allowed.status).toBe(200);
    expect(seen).toEqual(['/v2/models/echo/infer', '/v2/models/echo/infer']);
  });

  it('compresses where that is asked for', async () => {
    await serve();
    const big = new Uint8Array(Float32Array.from({ length: 4000 }, () => 1).buffer);
    const { status, headers } = await binary('echo', {
      header: {
        inputs: [
          {
            name: 'x',
            shape: [2000, 2],
            datatype: 'FP32',
            parameters: { binary_data_size: 16000 },
          },
        ],
        parameters: { binary_data_output: true },
      },
      data: big,
      headers: { 'accept-encoding': 'gzip' },
    });
    expect(status).toBe(200);
    expect(headers['content-encoding']).toBe('gzip');
  });

  it('takes many at once, and each gets its own', async () => {
    await serve();
    const agent = new http.Agent({ keepAlive: true, maxSockets: 32 });
    const results = await Promise.all(
      Array.from({ length: 500 }, (_, i) =>
        binary('echo', {
          header: header(),
          data: new Uint8Array(Float32Array.of(i, -i).buffer),
          headers: {},
        }),
      ),
    );
    agent.destroy();
    results.forEach(({ status, headers, body }, i) => {
      expect(status).toBe(200);
      const at = Number(headers['inference-header-content-length']);
      expect(body.readFloatLE(at)).toBe(i);
      expect(body.readFloatLE(at + 4)).toBe(-i);
    });
    expect(modelOf(engine, 'echo').stats()).toMatchObject({ runs: 500, rows: 500 });
  });

  it('fails only the guilty of a batch', async () => {
    await engine.load('lookup', lookup(), {
      batching: { maxBatch: 8, maxDelayUs: 20_000 },
      inline: 'never',
    });
    await serve();
    const results = await Promise.all(
      [0n, 99n, 1n].map((index) =>
        binary('lookup', {
          header: {
            inputs: [
              { name: 'at', shape: [1], datatype: 'INT64', parameters: { binary_data_size: 8 } },
            ],
            parameters: { binary_data_output: true },
          },
          data: new Uint8Array(BigInt64Array.of(index).buffer),
        }),
      ),
    );
    expect(results.map(({ status }) => status)).toEqual([200, 400, 200]); // what lies outside is the client's mistake
  });

  it('cancels the run when the client goes away', async () => {
    await engine.load('slow', slow(), { lanes: 1 });
    await serve();
    const head = Buffer.from(
      JSON.stringify({
        inputs: [
          { name: 'x', shape: [64, 64], datatype: 'FP32', parameters: { binary_data_size: 16384 } },
          { name: 'rounds', shape: [], datatype: 'INT64', parameters: { binary_data_size: 8 } },
        ],
      }),
    );
    const body = Buffer.concat([
      head,
      Buffer.alloc(16384),
      Buffer.from(BigInt64Array.of(1n << 40n).buffer),
    ]);
    const request = http.request(new URL('/v2/models/slow/infer', base), {
      method: 'POST',
      headers: { 'inference-header-content-length': head.length, 'content-length': body.length },
    });
    request.on('error', () => {});
    request.end(body);
    const model = modelOf(engine, 'slow');
    while (model.stats().running === 0) await new Promise((resolve) => setTimeout(resolve, 5));
    request.destroy();
    while (model.stats().running > 0) await new Promise((resolve) => setTimeout(resolve, 5));
    expect(model.stats().cancelled).toBe(1);
  });
});
