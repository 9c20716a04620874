// The server as its clients see it: real HTTP on loopback, the digits model, and models that others made.
import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { gzipSync, deflateSync, gunzipSync } from 'node:zlib';
import type { FastifyInstance } from 'fastify';
import { createEngine, createServer, stats, type Engine } from 'tercel';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { hasSharedModels, sharedModels } from '../../support/shared.js';
import { identity, slow, modelOf } from '../../support/models.js';

const root = fileURLToPath(new URL('../../..', import.meta.url));
const samples = path.join(root, 'models/digits/samples');
let engine: Engine;
let app: FastifyInstance;
let base: string;

beforeAll(async () => {
  engine = createEngine();
  await engine.load('digits', path.join(root, 'models/digits/1/model.onnx'));
  await engine.load('echo', identity(1, ['n', 'm']), { version: '1' });
  await engine.load('echo', identity(1, ['n', 'm']), { version: '12' });
  await engine.load('half', identity(10, ['n']));
  await engine.load('bytes', identity(8, ['n']));
  await engine.load('longs', identity(7, ['n']));
  await engine.load('flags', identity(9, ['n']));
  await engine.load('slow', slow(), { lanes: 1, maxQueue: 1 });
  app = createServer(engine, { bodyLimitBytes: 1_000_000 });
  base = await app.listen({ host: '127.0.0.1', port: 0 });
});
afterAll(async () => {
  await app.close();
  await engine.close();
});

interface Output {
  name: string;
  shape: number[];
  datatype: string;
  data?: unknown[];
  parameters?: { binary_data_size: number };
}
interface Answer {
  status: number;
  json: { error?: string; outputs: Output[] } & Record<string, unknown>;
  binary: Buffer;
  headers: Headers;
}

async function call(url: string, init: RequestInit = {}): Promise<Answer> {
  const response = await fetch(base + url, init);
  const body = Buffer.from(await response.arrayBuffer());
  const length = response.headers.get('inference-header-content-length');
  const split = length === null ? body.length : Number(length);
  return {
    status: response.status,
    json: (split ? JSON.parse(body.subarray(0, split).toString()) : {}) as Answer['json'],
    binary: body.subarray(split),
    headers: response.headers,
  };
}

const post = (url: string, body: unknown, headers: Record<string, string> = {}): Promise<Answer> =>
  call(url, {
    method: 'POST',
    body: (body instanceof Uint8Array || typeof body === 'string'
      ? body
      : JSON.stringify(body)) as RequestInit['body'],
    headers,
  });

function binaryBody(json: object, ...parts: Uint8Array[]): [Buffer, Record<string, string>] {
  const head = Buffer.from(JSON.stringify(json));
  return [
    Buffer.concat([head, ...parts]),
    {
      'content-type': 'application/octet-stream',
      'inference-header-content-length': String(head.length),
    },
  ];
}

const floats = (...values: number[]): Uint8Array =>
  new Uint8Array(Float32Array.from(values).buffer);

describe('health and metadata', () => {
  it('answer as the protocol says', async () => {
    expect((await call('/v2/health/live')).status).toBe(200);
    expect((await call('/v2/health/ready')).status).toBe(200);
    expect((await call('/v2')).json).toMatchObject({
      name: 'tercel',
      extensions: [
        'binary_tensor_data',
        'classification',
        'logging',
        'model_configuration',
        'model_repository',
        'parameters',
        'schedule_policy',
        'statistics',
      ],
    });
    expect((await call('/v2/models/digits')).json).toEqual({
      name: 'digits',
      versions: ['1'],
      platform: 'onnxruntime_onnx',
      inputs: [{ name: 'image', datatype: 'FP32', shape: [-1, 1, 8, 8] }],
      outputs: [
        { name: 'digit', datatype: 'INT64', shape: [-1] },
        { name: 'probabilities', datatype: 'FP32', shape: [-1, 10] },
      ],
    });
    expect((await call('/v2/models/echo/versions/12')).json['versions']).toEqual(['1', '12']);
    expect((await call('/v2/models/digits/ready')).status).toBe(200);
  });

  it('say 404 and 405', async () => {
    for (const url of [
      '/v2/models/nope',
      '/v2/models/nope/ready',
      '/v2/models/echo/versions/2',
      '/v2/nope',
      '/',
    ]) {
      const answer = await call(url);
      expect(answer.status).toBe(404);
      expect(answer.json.error).toBeTypeOf('string');
    }
    expect((await call('/v2/models/echo/versions/2')).json.error).toBe(
      'model "echo" has no version 2; it has 1, 12',
    );
    const wrong = await call('/v2/models/digits/infer');
    expect(wrong.status).toBe(405);
    expect(wrong.headers.get('allow')).toBe('POST');
    expect((await post('/v2/health/live', '{}')).status).toBe(405);
  });
});

describe('real digits', () => {
  const names = readdirSync(samples).filter((file) => file.endsWith('.json'));
  it('are a dozen', () => expect(names.length).toBe(12));

  it.each(names)('%s, as JSON and as the pixels of its PNG', async (file) => {
    const digit = Number(file[0]);
    const asJson = await post(
      '/v2/models/digits/infer',
      readFileSync(path.join(samples, file), 'utf8'),
    );
    expect(asJson.json.outputs[0]).toEqual({
      name: 'digit',
      shape: [1],
      datatype: 'INT64',
      data: [digit],
    });

    const png = path.join(samples, file.replace('.json', '.png'));
    const pixels = execFileSync(process.execPath, [
      path.join(root, 'models/digits/pixels.mjs'),
      png,
    ]);
    const raw = await post('/v2/models/digits/infer', new Uint8Array(pixels), {
      'content-type': 'application/octet-stream',
      'inference-header-content-length': '0',
    });
    expect(raw.status).toBe(200);
    expect(raw.binary.readBigInt64LE()).toBe(BigInt(digit));
    const [body, headers] = binaryBody(
      {
        inputs: [
          {
            name: 'image',
            shape: [1, 1, 8, 8],
            datatype: 'FP32',
            parameters: { binary_data_size: 256 },
          },
        ],
        outputs: [{ name: 'digit' }],
      },
      pixels,
    );
    const mixed = await post('/v2/models/digits/versions/1/infer', new Uint8Array(body), headers);
    expect(mixed.json.outputs).toEqual([
      { name: 'digit', shape: [1], datatype: 'INT64', data: [digit] },
    ]);
  });
});

describe('infer', () => {
  it('takes data flat or nested, and gives id and version back', async () => {
    for (const data of [
      [1, 2, 3, 4],
      [
        [1, 2],
        [3, 4],
      ],
    ]) {
      const answer = await post('/v2/models/echo/infer', {
        id: 'seven',
        inputs: [{ name: 'x', shape: [2, 2], datatype: 'FP32', data }],
      });
      expect(answer.json).toEqual({
        model_name: 'echo',
        model_version: '12',
        id: 'seven',
        outputs: [{ name: 'y', shape: [2, 2], datatype: 'FP32', data: [1, 2, 3, 4] }],
      });
    }
    const old = await post('/v2/models/echo/versions/1/infer', {
      inputs: [{ name: 'x', shape: [0, 2], datatype: 'FP32', data: [] }],
    });
    expect(old.json).toMatchObject({ model_version: '1', outputs: [{ shape: [0, 2], data: [] }] });
  });

  it('answers in binary as asked: by output, by request, the output first', async () => {
    const inputs = [{ name: 'x', shape: [1, 2], datatype: 'FP32', data: [1, 2] }];
    const ask = async (extra: object): Promise<boolean> => {
      const answer = await post('/v2/models/echo/infer', { inputs, ...extra });
      expect(answer.status).toBe(200);
      const { parameters, data } = answer.json.outputs[0]!;
      if (!parameters) return (expect(data).toEqual([1, 2]), false);
      expect(parameters.binary_data_size).toBe(8);
      expect([...answer.binary]).toEqual([...floats(1, 2)]);
      expect(answer.headers.get('content-type')).toContain('application/octet-stream');
      return true;
    };
    expect(await ask({})).toBe(false);
    expect(await ask({ parameters: { binary_data_output: true } })).toBe(true);
    expect(await ask({ outputs: [{ name: 'y', parameters: { binary_data: true } }] })).toBe(true);
    expect(
      await ask({
        parameters: { binary_data_output: true },
        outputs: [{ name: 'y', parameters: { binary_data: false } }],
      }),
    ).toBe(false);
  });

  it('carries every kind of value', async () => {
    const half = new Uint8Array(Uint16Array.from([0x3c00, 0x4000]).buffer);
    const [body, headers] = binaryBody(
      {
        parameters: { binary_data_output: true },
        inputs: [{ name: 'x', shape: [2], datatype: 'FP16', parameters: { binary_data_size: 4 } }],
      },
      half,
    );
    expect([
      ...(await post('/v2/models/half/infer', new Uint8Array(body), headers)).binary,
    ]).toEqual([...half]);

    const text = await post('/v2/models/bytes/infer', {
      inputs: [{ name: 'x', shape: [2], datatype: 'BYTES', data: ['grüße', ''] }],
    });
    expect(text.json.outputs[0]!.data).toEqual(['grüße', '']);
    const packed = Buffer.from('\x02\0\0\0hi\0\0\0\0', 'latin1');
    const [strings, stringHeaders] = binaryBody(
      {
        parameters: { binary_data_output: true },
        inputs: [
          { name: 'x', shape: [2], datatype: 'BYTES', parameters: { binary_data_size: 10 } },
        ],
      },
      packed,
    );
    expect([
      ...(await post('/v2/models/bytes/infer', new Uint8Array(strings), stringHeaders)).binary,
    ]).toEqual([...packed]);

    const longs = await post('/v2/models/longs/infer', {
      inputs: [{ name: 'x', shape: [2], datatype: 'INT64', data: [-5, 9007199254740991] }],
    });
    expect(longs.json.outputs[0]!.data).toEqual([-5, 9007199254740991]);
    const flags = await post('/v2/models/flags/infer', {
      inputs: [{ name: 'x', shape: [3], datatype: 'BOOL', data: [true, false, 1] }],
    });
    expect(flags.json.outputs[0]!.data).toEqual([true, false, true]);
  });

  it('takes large tensors straight into the arena, and streams them back', async () => {
    const n = 200_000;
    const tensor = new Uint8Array(Float32Array.from({ length: n }, (_, i) => i).buffer);
    const [body, headers] = binaryBody(
      {
        parameters: { binary_data_output: true },
        inputs: [
          { name: 'x', shape: [1, n], datatype: 'FP32', parameters: { binary_data_size: 4 * n } },
        ],
      },
      tensor,
    );
    const before = stats().copies.bytesIn;
    const answer = await post('/v2/models/echo/infer', new Uint8Array(body), headers);
    expect(answer.status).toBe(200);
    expect(Buffer.compare(answer.binary, tensor)).toBe(0);
    expect(stats().copies.bytesIn - before).toBe(0);
  });

  it('reads gzip and deflate, and writes what is accepted', async () => {
    const text = readFileSync(path.join(samples, '3.json'));
    for (const [encoding, squeeze] of [
      ['gzip', gzipSync],
      ['deflate', deflateSync],
    ] as const) {
      const answer = await post('/v2/models/digits/infer', new Uint8Array(squeeze(text)), {
        'content-encoding': encoding,
      });
      expect(answer.json.outputs[0]!.data).toEqual([3]);
    }
    const squeezed = await new Promise<Buffer>((resolve, reject) => {
      const request = http.request(
        `${base}/v2/models/echo/infer`,
        { method: 'POST', headers: { 'accept-encoding': 'gzip' } },
        (response) => {
          expect(response.headers['content-encoding']).toBe('gzip');
          const chunks: Buffer[] = [];
          response.on('data', (chunk: Buffer) => chunks.push(chunk));
          response.on('end', () => resolve(Buffer.concat(chunks)));
        },
      );
      request.on('error', reject);
      request.end(
        JSON.stringify({
          inputs: [{ name: 'x', shape: [1, 2000], datatype: 'FP32', data: Array(2000).fill(1) }],
        }),
      );
    });
    expect(
      (JSON.parse(gunzipSync(squeezed).toString()) as Answer['json']).outputs[0]!.data!.length,
    ).toBe(2000);
    expect(
      (await post('/v2/models/digits/infer', 'no gzip', { 'content-encoding': 'gzip' })).status,
    ).toBe(400);
  });
});

describe('what is wrong', () => {
  const tensor = { name: 'x', shape: [1, 2], datatype: 'FP32', data: [1, 2] };
  const cases: [string, unknown, string][] = [
    ['no JSON', '{"inputs":', 'the JSON does not parse'],
    ['no object', '[]', 'the request must be a JSON object'],
    ['no inputs', {}, 'inputs must be an array'],
    ['no name', { inputs: [{}] }, 'inputs[0]: a name is missing'],
    ['a missing input', { inputs: [] }, 'input "x" is missing'],
    ['an unknown input', { inputs: [{ ...tensor, name: 'z' }] }, 'input "z" does not exist'],
    ['an input twice', { inputs: [tensor, tensor] }, 'input "x" is there twice'],
    [
      'an unknown datatype',
      { inputs: [{ ...tensor, datatype: 'FP8' }] },
      'datatype "FP8" is not one of',
    ],
    [
      'a wrong datatype',
      { inputs: [{ ...tensor, datatype: 'INT32' }] },
      'expected float32[n,m], got int32[1,2]',
    ],
    [
      'a wrong shape',
      { inputs: [{ ...tensor, shape: [2] }] },
      'expected float32[n,m], got float32[2]',
    ],
    [
      'a negative shape',
      { inputs: [{ ...tensor, shape: [-1, 2] }] },
      'a dimension must be a whole number',
    ],
    ['no shape', { inputs: [{ ...tensor, shape: undefined }] }, 'shape must be an array'],
    [
      'too few elements',
      { inputs: [{ ...tensor, data: [1] }] },
      'the shape holds 2 elements, data has 1',
    ],
    [
      'no number',
      { inputs: [{ ...tensor, data: [1, 'two'] }] },
      'element 1 of data, "two", is no FP32',
    ],
    ['no data', { inputs: [{ ...tensor, data: undefined }] }, 'data must be an array'],
    ['a wrong output', { inputs: [tensor], outputs: [{ name: 'z' }] }, 'output "z" does not exist'],
    [
      'shared memory',
      { inputs: [{ ...tensor, parameters: { shared_memory_region: 'r' } }] },
      'shared memory is not available',
    ],
    [
      'too many bytes asked for',
      { inputs: [{ ...tensor, data: undefined, parameters: { binary_data_size: 8 } }] },
      'binary_data_size is 8, 0 bytes are left',
    ],
    ['a wrong id', { id: 5, inputs: [tensor] }, 'id must be a string'],
    [
      'an input of a name that every object has',
      { inputs: [tensor, { ...tensor, name: '__proto__' }] },
      'input "__proto__" does not exist',
    ],
  ];
  it.each(cases)('%s', async (_name, body, message) => {
    const answer = await post('/v2/models/echo/infer', body);
    expect(answer.json.error).toContain(message);
    expect(answer.status).toBe(400);
  });

  it('FP16 in JSON, either way', async () => {
    const json = await post('/v2/models/half/infer', {
      inputs: [{ name: 'x', shape: [1], datatype: 'FP16', data: [1] }],
    });
    expect([json.status, json.json.error]).toEqual([
      400,
      'input "x": FP16 has no JSON form; send it as binary',
    ]);
    const [body, headers] = binaryBody(
      {
        inputs: [{ name: 'x', shape: [1], datatype: 'FP16', parameters: { binary_data_size: 2 } }],
      },
      new Uint8Array(2),
    );
    const back = await post('/v2/models/half/infer', new Uint8Array(body), headers);
    expect([back.status, back.json.error]).toEqual([
      400,
      'output "y": FP16 has no JSON form; ask for it with binary_data',
    ]);
  });

  it('numbers that would wrap, and binary that does not fit', async () => {
    expect(
      (
        await post('/v2/models/longs/infer', {
          inputs: [{ name: 'x', shape: [1], datatype: 'INT64', data: [1e30] }],
        })
      ).status,
    ).toBe(400);
    const sizes: [number, Uint8Array, string][] = [
      [4, floats(1), 'the shape needs 8 bytes of FP32, 4 came'],
      [8, floats(1, 2, 3), '4 bytes of the body belong to no input'],
    ];
    for (const [size, bytes, message] of sizes) {
      const [body, headers] = binaryBody(
        {
          inputs: [
            { name: 'x', shape: [1, 2], datatype: 'FP32', parameters: { binary_data_size: size } },
          ],
        },
        bytes,
      );
      const answer = await post('/v2/models/echo/infer', new Uint8Array(body), headers);
      expect([answer.status, answer.json.error]).toEqual([400, expect.stringContaining(message)]);
    }
    for (const length of ['99999', '-1', 'x', '1.5']) {
      const answer = await post('/v2/models/echo/infer', '{}', {
        'inference-header-content-length': length,
      });
      expect(answer.status).toBe(400);
      expect(answer.json.error).toContain('Inference-Header-Content-Length');
    }
  });

  it('says at which byte of the body a number is wrong, behind other arrays too', async () => {
    const wrong = (data: string): string =>
      `{"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": ${data}}]}`;
    for (const [data, message] of [
      ['[1, 2e]', 'element 1 of data, 2e, is no FP32'],
      ['[[1, [2]], 3 4]', 'expected a comma or ]'],
      ['[1, 1e39]', 'element 1 of data, 1e39, is no FP32'],
    ] as const) {
      const body = wrong(data);
      const answer = await post('/v2/models/echo/infer', body);
      expect([answer.status, answer.json.error]).toEqual([400, expect.stringContaining(message)]);
      const at = Number(/byte (\d+)/.exec(answer.json.error!)![1]);
      expect(['2e]', '4]', '1e39]'].some((text) => body.startsWith(text, at))).toBe(true);
    }
    const text = `${wrong('[1, 2]').slice(0, -1)}, "outputs": [}`;
    const answer = await post('/v2/models/echo/infer', text);
    expect(answer.status).toBe(400);
    const at = /position (\d+)/.exec(answer.json.error!);
    if (at) expect(text[Number(at[1])]).toBe('}');
    expect(answer.json.error).not.toMatch(/[A-Za-z0-9_-]{16}:/);
  });

  it('64-bit integers are exact either way', async () => {
    const body =
      '{"inputs": [{"name": "x", "shape": [3], "datatype": "INT64", ' +
      '"data": [9007199254740993, -9223372036854775808, 9223372036854775807]}]}';
    const response = await fetch(`${base}/v2/models/longs/infer`, { method: 'POST', body });
    expect(response.status).toBe(200);
    expect(await response.text()).toContain(
      '"data":[9007199254740993,-9223372036854775808,9223372036854775807]',
    );
  });

  it('keys in escapes, and the text that stands for arrays inside, are refused', async () => {
    const body =
      '{"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "\\u0064ata": [1, 2]}]}';
    const answer = await post('/v2/models/echo/infer', body);
    expect([answer.status, answer.json.error]).toEqual([
      400,
      'input "x": the keys "inputs" and "data" must be written without escapes',
    ]);
    const text = await post('/v2/models/echo/infer', {
      inputs: [{ name: 'x', shape: [1, 2], datatype: 'FP32', data: '0' }],
    });
    expect([text.status, text.json.error]).toEqual([400, 'input "x": data must be an array']);
  });

  it('a body over the limit, and no body', async () => {
    expect((await post('/v2/models/echo/infer', 'x'.repeat(1_000_001))).status).toBe(413);
    const bomb = gzipSync(Buffer.alloc(5_000_000, 32));
    expect(
      (await post('/v2/models/echo/infer', new Uint8Array(bomb), { 'content-encoding': 'gzip' }))
        .status,
    ).toBe(413);
    expect((await call('/v2/models/echo/infer', { method: 'POST' })).status).toBe(400);
    expect((await post('/v2/models/nope/infer', '{}')).status).toBe(404);
  });
});

describe('load', () => {
  const long = (rounds: number, parameters: object = {}): object => ({
    parameters,
    inputs: [
      { name: 'x', shape: [64, 64], datatype: 'FP32', data: Array(4096).fill(0.01) },
      { name: 'rounds', shape: [], datatype: 'INT64', data: [rounds] },
    ],
    outputs: [{ name: 'y', parameters: { binary_data: true } }],
  });
  const model = () => modelOf(engine, 'slow');
  const until = async (condition: () => boolean): Promise<void> => {
    while (!condition()) await new Promise((resolve) => setTimeout(resolve, 1));
  };

  it('over the queue is 503, a timeout 504, and a client that goes away frees its lane', async () => {
    const controller = new AbortController();
    const first = call('/v2/models/slow/infer', {
      method: 'POST',
      body: JSON.stringify(long(1e12)),
      signal: controller.signal,
    }).catch((error: Error) => error.name);
    await until(() => model().stats().running === 1);
    const second = post('/v2/models/slow/infer', long(1, { timeout: 50_000 }));
    await until(() => model().stats().queued === 1);
    const third = await post('/v2/models/slow/infer', long(1));
    expect([third.status, third.json.error]).toEqual([
      503,
      expect.stringContaining('the queue is full'),
    ]);
    const late = await second;
    expect([late.status, late.json.error]).toEqual([504, 'the deadline passed']);
    controller.abort();
    expect(await first).toBe('AbortError');
    await until(() => model().stats().running === 0);
    expect((await post('/v2/models/slow/infer', long(1))).status).toBe(200);
  });
});

describe.runIf(hasSharedModels)('models that others serve', () => {
  it('add and subtract as their clients expect', async () => {
    const repository = path.join(sharedModels, 'triton-repository');
    const own = createEngine();
    await own.loadRepository(repository);
    const server = createServer(own);
    expect(own.names().sort()).toEqual(['simple', 'simple_int8', 'simple_string']);
    const infer = async (
      model: string,
      datatype: string,
      a: unknown[],
      b: unknown[],
    ): Promise<Output[]> => {
      const response = await server.inject({
        method: 'POST',
        url: `/v2/models/${model}/infer`,
        payload: JSON.stringify({
          inputs: [
            { name: 'INPUT0', shape: [1, 16], datatype, data: a },
            { name: 'INPUT1', shape: [1, 16], datatype, data: b },
          ],
        }),
      });
      return response.json<{ outputs: Output[] }>().outputs;
    };
    const a = Array.from({ length: 16 }, (_, i) => i);
    const b = Array(16).fill(1) as number[];
    const sums = a.map((x) => x + 1);
    const differences = a.map((x) => x - 1);
    for (const [model, datatype] of [
      ['simple', 'INT32'],
      ['simple_int8', 'INT8'],
    ] as const) {
      const outputs = await infer(model, datatype, a, b);
      expect(outputs.map((output) => output.data)).toEqual([sums, differences]);
    }
    const text = await infer('simple_string', 'BYTES', a.map(String), b.map(String));
    expect(text.map((output) => output.data)).toEqual([sums.map(String), differences.map(String)]);
    await server.close();
    await own.close();
  });
});

describe('JSON that takes long', () => {
  const count = 400_000;
  const data = Float32Array.from({ length: count }, (_, i) => i / 7);
  const request = (text: string): string =>
    `{"inputs":[{"name":"x","shape":[1,${count}],"datatype":"FP32","data":[${text}]}]}`;

  it('is read and printed exactly, and its errors name their place', async () => {
    const large = createServer(engine);
    const url = await large.listen({ host: '127.0.0.1', port: 0 });
    const ask = (body: string): Promise<Response> =>
      fetch(`${url}/v2/models/echo/infer`, { method: 'POST', body });
    const text = data.join(',');
    const answers = await Promise.all([ask(request(text)), ask(request(text))]);
    for (const answer of answers) {
      const { outputs } = (await answer.json()) as { outputs: [{ data: number[] }] };
      const got = Buffer.from(Float32Array.from(outputs[0].data).buffer);
      expect(got.equals(Buffer.from(data.buffer))).toBe(true);
    }
    const wrong = request(`${text.slice(0, text.lastIndexOf(','))},x`);
    const answer = await ask(wrong);
    expect(answer.status).toBe(400);
    expect(await answer.json()).toEqual({
      error: `input "x": element ${count - 1} of data, x, is no FP32 (byte ${wrong.indexOf('x]')})`,
    });
    const short = await ask(request(text.slice(0, text.lastIndexOf(','))));
    expect(await short.json()).toEqual({
      error: `input "x": the shape holds ${count} elements, data has ${count - 1}`,
    });
    const refused = Float32Array.from(data);
    refused[count - 1] = NaN;
    const head = JSON.stringify({
      inputs: [
        {
          name: 'x',
          shape: [1, count],
          datatype: 'FP32',
          parameters: { binary_data_size: refused.byteLength },
        },
      ],
    });
    const nan = await fetch(`${url}/v2/models/echo/infer`, {
      method: 'POST',
      headers: {
        'inference-header-content-length': String(head.length),
        'accept-encoding': 'gzip',
      },
      body: Buffer.concat([Buffer.from(head), Buffer.from(refused.buffer)]),
    });
    expect(nan.status).toBe(400);
    expect(JSON.stringify(await nan.json())).toContain(`element ${count - 1} is NaN`);
    await large.close();
  });
});

describe('generate', () => {
  it('takes plain JSON, and answers once or by an event', async () => {
    const answer = await post('/v2/models/bytes/generate', { x: 'hello', id: 'a' });
    expect(answer.status).toBe(200);
    expect(answer.json).toEqual({ id: 'a', model_name: 'bytes', model_version: '1', y: 'hello' });
    expect((await post('/v2/models/bytes/generate', { x: ['a', 'b'] })).json).toMatchObject({
      y: ['a', 'b'],
    });
    // Inputs may come as parameters too.
    const longs = { parameters: { x: 5, priority: 1 } };
    expect((await post('/v2/models/longs/versions/1/generate', longs)).json).toMatchObject({
      y: 5,
    });
    expect((await post('/v2/models/flags/generate', { x: true })).json).toMatchObject({ y: true });
    const stream = await fetch(`${base}/v2/models/bytes/generate_stream`, {
      method: 'POST',
      body: JSON.stringify({ x: 'hello\n' }),
    });
    expect(stream.headers.get('content-type')).toContain('text/event-stream');
    expect(await stream.text()).toBe(
      'data: {"model_name":"bytes","model_version":"1","y":"hello\\n"}\n\n',
    );
  });

  it.each([
    ['bytes', {}, 'input "x" is missing'],
    ['bytes', { x: 5 }, 'expected BYTES, got 5'],
    ['bytes', { x: 'a', z: 1 }, 'input "z" does not exist; the model has "x"'],
    ['bytes', [], 'must be a JSON object'],
    ['bytes', { x: 'a', id: 1 }, 'id must be a string'],
    ['bytes', { x: 'a', parameters: 1 }, 'parameters must be an object'],
    ['longs', { x: 1.5 }, 'expected INT64, got 1.5'],
    ['flags', { x: 1 }, 'expected BOOL, got 1'],
    ['half', { x: 1 }, 'FP16 has no JSON form'],
  ])('%s refuses %j', async (model, body, message) => {
    for (const path of ['generate', 'generate_stream']) {
      const answer = await post(`/v2/models/${model}/${path}`, body);
      expect(answer.json.error).toContain(message);
      expect(answer.status).toBe(400);
    }
  });
});
