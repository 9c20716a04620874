// tercel bench as its users have it: commands, their files and their exit codes.
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { Ajv2020 } from 'ajv/dist/2020.js';
import { createEngine, createGrpcServer, createServer, type Engine } from 'tercel';
import {
  compareDocuments,
  fitCost,
  makeInputs,
  readBenchDocument,
  type BenchDocument,
} from 'tercel/measure';
import { PNG } from 'pngjs';
import { zipSync } from 'fflate';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { identity } from '../support/models.js';
import { COMMAND_MS } from '../support/wait.js';

const FLOAT = 1;
const root = fileURLToPath(new URL('../..', import.meta.url));
const program = path.join(root, 'dist/cli/main.js');
const mlp = path.join(root, 'models/bench/mlp/1/model.onnx');
const quick = [
  ...['--duration', '60ms', '--rounds', '3', '--launches', '1', '--warm-up', '200ms'],
  '--quiet',
];
let folder: string;
const inFolder = (name: string): string => path.join(folder, name);

beforeAll(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'tercel-bench-test-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function tercel(...args: string[]): { status: number | null; stdout: string; stderr: string } {
  return spawnSync(process.execPath, [program, ...args], { encoding: 'utf8', timeout: COMMAND_MS });
}

/** The same, while this process serves. */
async function tercelBeside(
  ...args: string[]
): Promise<{ status: number; stdout: string; stderr: string }> {
  const child = spawn(process.execPath, [program, ...args], { timeout: COMMAND_MS });
  let stdout = '';
  let stderr = '';
  child.stdout.on('data', (chunk: Buffer) => (stdout += chunk.toString()));
  child.stderr.on('data', (chunk: Buffer) => (stderr += chunk.toString()));
  const [status] = (await once(child, 'close')) as [number];
  return { status, stdout, stderr };
}

describe('a sweep in this process', () => {
  let document: BenchDocument;
  const file = (): string => inFolder('sweep.json');

  beforeAll(() => {
    const { status, stderr, stdout } = tercel(
      'bench',
      mlp,
      '--concurrency',
      '1,8',
      '--batch',
      '1..4',
      ...quick,
      '-o',
      file(),
    );
    expect([status, stderr]).toEqual([0, '']);
    expect(stdout).toContain('mlp batch 4 concurrency 8');
    document = readBenchDocument(file());
  });

  it('has every point, in turns, beside the C loop', () => {
    expect(
      document.points.map(({ settings }) => [settings['batch'], settings['concurrency']]),
    ).toEqual([
      [1, 1],
      [1, 8],
      [2, 1],
      [2, 8],
      [4, 1],
      [4, 8],
    ]);
    for (const { rounds, latency, maxNs, peakMemoryBytes } of document.points) {
      expect(rounds.length).toBeGreaterThanOrEqual(3);
      expect(latency.reduce((sum, [, count]) => sum + count, 0)).toBe(
        rounds.reduce((sum, { completed }) => sum + completed, 0),
      );
      expect(maxNs).toBeGreaterThan(0);
      expect(peakMemoryBytes).toBeNull(); // the C loop's session is there too
      for (const round of rounds) {
        expect(round.p50Us).toBeLessThanOrEqual(round.p99Us);
        expect(round.p99Us).toBeLessThanOrEqual(round.maxUs);
        expect(round.reference).toBeGreaterThan(round.throughput / 5);
        expect(round.cpuUsPerInference).toBeGreaterThan(0);
      }
    }
    const starts = document.points.map(({ rounds }) => rounds.map(({ startedMs }) => startedMs));
    // Forth and back: the first point is first in the first round, and last in the second.
    expect(Math.max(...starts.map((of) => of[0]!))).toBe(starts.at(-1)![0]);
    expect(Math.max(...starts.map((of) => of[1]!))).toBe(starts[0]![1]);
  });

  it('is divided among processes, which count as much as they are', () => {
    const several = inFolder('several.json');
    const { status, stderr } = tercel(
      ...['bench', mlp, ...quick, '--rounds', '6', '--launches', '3', '-o', several],
    );
    expect([status, stderr]).toEqual([0, '']);
    const { points, run, partial } = readBenchDocument(several);
    expect([run.rounds, run.launches, partial, points.length]).toEqual([6, 3, false, 1]);
    const [{ rounds, latency }] = points as [BenchDocument['points'][0]];
    expect(rounds.map(({ launch }) => launch)).toEqual([0, 0, 1, 1, 2, 2]);
    expect([...rounds].sort((a, b) => a.startedMs - b.startedMs)).toEqual(rounds);
    expect(latency.reduce((sum, [, count]) => sum + count, 0)).toBe(
      rounds.reduce((sum, { completed }) => sum + completed, 0),
    );
  });

  it('has the memory of a model that is alone, and its rows counted', () => {
    const alone = inFolder('alone.json');
    const { status, stderr } = tercel(
      ...['bench', mlp, '--no-floor', '--batch', '8', '--call', 'sync', ...quick, '-o', alone],
    );
    expect([status, stderr]).toEqual([0, '']);
    const [point] = readBenchDocument(alone).points;
    expect(point!.peakMemoryBytes).toBeGreaterThan(10e6);
    for (const { throughput, meanUs, reference } of point!.rounds) {
      expect(reference).toBeNull();
      // One caller, one after the other: a batch of 8 takes as long as eight inferences.
      expect((throughput * meanUs) / 8e6).toBeGreaterThan(0.7);
      expect((throughput * meanUs) / 8e6).toBeLessThan(1.02);
    }
  });

  it('follows the published schema, and says what machine it was', () => {
    const schema = JSON.parse(
      readFileSync(path.join(root, 'schema/bench.schema.json'), 'utf8'),
    ) as object;
    const validate = new Ajv2020({ strict: false }).compile(schema);
    expect([validate(JSON.parse(readFileSync(file(), 'utf8'))), validate.errors]).toEqual([
      true,
      null,
    ]);
    expect(document.machine.libraries.onnxruntime).toMatch(/^1\./);
    expect(document.machine.cpu.available).toBeGreaterThan(0);
    expect(document.models[0]!.sha256).toMatch(/^[0-9a-f]{64}$/);
  });

  it('becomes a page without requests, Markdown and CSV', () => {
    for (const [name, has] of [
      ['r.html', '<svg'],
      ['r.md', '| mlp batch 1 concurrency 1 |'],
      ['r.csv', 'model,threads'],
    ] as const) {
      expect(tercel('bench', 'report', file(), '-o', inFolder(name)).status).toBe(0);
      const text = readFileSync(inFolder(name), 'utf8');
      expect(text).toContain(has);
      expect(text).not.toMatch(/(src|href)="(?!data:)/);
    }
    const lines = readFileSync(inFolder('r.csv'), 'utf8').trim().split('\n');
    expect(lines.length).toBe(
      1 + document.points.reduce((sum, { rounds }) => sum + rounds.length, 0),
    );
  });

  it('compares: the same is no difference, a tenth slower is found', () => {
    const same = tercel('bench', 'compare', file(), file(), '--fail-above', '5%');
    expect(same.status).toBe(0);
    expect(same.stdout).not.toMatch(/worse|better/);
    // Steady rounds, of which the second document's are a tenth slower.
    const steady = (factor: number): BenchDocument => ({
      ...document,
      points: document.points.map((point) => ({
        ...point,
        rounds: Array.from({ length: 20 }, (_, i) => {
          const noise = 1 + ((i * 7) % 5) / 200;
          return {
            ...point.rounds[0]!,
            reference: 100_000,
            throughput: (80_000 * noise) / factor,
            p50Us: (12 / noise) * factor,
            p99Us: (15 / noise) * factor,
          };
        }),
      })),
    });
    const [base, slow] = [inFolder('base.json'), inFolder('slow.json')];
    writeFileSync(base, JSON.stringify(steady(1)));
    writeFileSync(slow, JSON.stringify(steady(1.1)));
    const worse = tercel('bench', 'compare', base, slow, '--fail-above', '5%');
    expect([worse.status, worse.stderr]).toEqual([1, expect.stringContaining('worse by 10')]);
    expect(tercel('bench', 'compare', base, slow, '--fail-above', '20%').status).toBe(0);
    expect(tercel('bench', 'compare', slow, base).stdout).toContain('better');
    const { rows } = compareDocuments([steady(1), steady(1.02)]);
    expect(rows.every(({ verdicts }) => verdicts[0] === 'no difference')).toBe(true);
  });
});

describe('a server', () => {
  let engine: Engine;
  const ports: Record<string, number> = {};
  const closing: (() => Promise<unknown>)[] = [];

  beforeAll(async () => {
    engine = createEngine();
    await engine.load('echo', identity(FLOAT, ['n', 2]));
    const app = createServer(engine);
    await app.listen({ host: '127.0.0.1', port: 0 });
    const { port } = app.server.address() as AddressInfo;
    ports['oip-http'] = ports['tfs-http'] = port;
    const grpc = createGrpcServer(engine);
    ports['oip-grpc'] = await grpc.listen({ port: 0 });
    closing.push(
      () => app.close(),
      () => grpc.close(),
    );
  });
  afterAll(async () => {
    for (const close of closing) await close();
    await engine.close();
  });

  it.each(['oip-http', 'tfs-http', 'oip-grpc'])('is measured over %s', async (protocol) => {
    const file = inFolder(`${protocol}.json`);
    const { status, stderr } = await tercelBeside(
      'bench',
      '--url',
      `http://127.0.0.1:${ports[protocol]}`,
      '--protocol',
      protocol,
      'echo',
      '--concurrency',
      '2',
      '--rate',
      '200',
      '--header',
      'Authorization: secret',
      ...quick,
      '-o',
      file,
    );
    expect([status, stderr]).toEqual([0, '']);
    expect(readFileSync(file, 'utf8')).not.toContain('secret');
    const { points, target } = readBenchDocument(file);
    expect(target).toMatchObject({ kind: 'server', protocol });
    expect(points.length).toBe(2);
    for (const { rounds } of points) {
      for (const { completed, errors } of rounds) {
        expect([completed > 0, errors]).toEqual([true, {}]);
      }
    }
  });

  it('that has no such model, or wants another shape, is told in one sentence', async () => {
    const url = `http://127.0.0.1:${ports['oip-http']}`;
    for (const [args, message] of [
      [['nosuch'], 'model \\"nosuch\\" does not exist'],
      [['echo', '--shape', 'x=1x2x3'], 'expected 2 dimensions'],
      [['echo', '--shape', 'x=1x7'], 'every request failed (HTTP 400'],
      [['echo', '--shape', 'z=1x2'], 'the model has no such input'],
      [['echo', '--dim', 'm=3'], 'the model has no dimension "m"'],
    ] as const) {
      const { status, stderr } = await tercelBeside('bench', '--url', url, ...args, ...quick);
      expect([status, stderr]).toEqual([2, expect.stringContaining(message)]);
      expect(stderr.trim().split('\n').length).toBe(1);
    }
  });
});

describe('what goes wrong', () => {
  it('ends with one clear sentence and exit code 2', () => {
    const corrupt = inFolder('corrupt.json');
    writeFileSync(corrupt, '{"format": "tercel-bench", "version": 1, "points": 3}');
    writeFileSync(inFolder('none.onnx'), 'no model');
    for (const [args, message] of [
      [['bench', '/nowhere/model.onnx'], 'cannot read model "/nowhere/model.onnx"'],
      [['bench', inFolder('none.onnx'), ...quick], 'cannot load'],
      [['bench', '--url', 'http://127.0.0.1:9999', 'mlp'], 'cannot reach http://127.0.0.1:9999'],
      [['bench', '--url', 'nonsense', 'mlp'], 'expected a URL'],
      [
        ['bench', '--url', 'http://127.0.0.1:9999', '--protocol', 'oip-grpc', 'mlp'],
        'cannot reach',
      ],
      [['bench', mlp, '--call', 'sync', '--concurrency', '2', ...quick], 'one request at a time'],
      [['bench', mlp, '--precision', 'fp16', ...quick], 'there is no'],
      [['bench', mlp, '--shape', 'x=1x784', '--batch', '8', ...quick], 'has 1 rows'],
      [['bench', mlp, '--dim', 'batch=4', ...quick], 'has 4 rows, where the batch is 1'],
      [['bench', mlp, '-o', '/nowhere/at/all.json', ...quick], 'cannot write /nowhere/at/all.json'],
      [['bench', '--url', 'http://127.0.0.1:9999', '--threads', '2', 'mlp'], 'not with --url'],
      [['bench', mlp, '--fit', '--lanes', '2'], 'cannot be chosen with --fit'],
      [['bench', mlp, '--max-p99', '1ms'], '--max-p99 is for --fit'],
      [['bench', mlp, '--input', 'x=/nowhere.npy', ...quick], 'cannot read /nowhere.npy'],
      [['bench', 'compare', corrupt, corrupt], 'created: '],
      [['bench', 'report', inFolder('missing.json')], 'cannot read'],
      [['profile', '/nowhere/model.onnx'], 'cannot '],
      [['profile', inFolder('none.onnx')], 'cannot load'],
    ] as const) {
      const { status, stderr } = tercel(...args);
      expect([args.join(' '), status, stderr]).toEqual([
        args.join(' '),
        2,
        expect.stringContaining(message),
      ]);
      expect(
        stderr
          .trim()
          .split('\n')
          .filter((line) => !line.endsWith(' ...')).length,
      ).toBe(1);
    }
  });

  it('is what was asked wrongly, too: exit code 1 is for what is worse', () => {
    for (const args of [
      ['bench', mlp, '--nonsense'],
      ['bench'],
      ['bench', 'compare', 'a', '--fail-above', 'foo'],
      ['profile'],
    ]) {
      expect([args, tercel(...args).status]).toEqual([args, 2]);
    }
    expect(tercel('bench', '--help').status).toBe(0);
  });

  it('keeps what was measured when the server dies', async () => {
    const metadata = JSON.stringify({
      name: 'm',
      inputs: [{ name: 'x', datatype: 'FP32', shape: [-1, 2] }],
      outputs: [],
    });
    let infers = 0;
    const server = http.createServer((request, response) => {
      request.resume();
      if (request.method === 'GET') {
        response.end(metadata);
        return;
      }
      infers++;
      setTimeout(() => response.end('{}'), 2);
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    const watch = setInterval(() => {
      if (infers > 400) {
        server.close();
        server.closeAllConnections();
      }
    }, 5);
    const file = inFolder('died.json');
    const { status, stderr } = await tercelBeside(
      'bench',
      '--url',
      `http://127.0.0.1:${port}`,
      'm',
      '--duration',
      '150ms',
      '--rounds',
      '5000',
      '--warm-up',
      '100ms',
      '--quiet',
      '-o',
      file,
    );
    clearInterval(watch);
    expect([status, stderr]).toEqual([
      2,
      expect.stringMatching(/gone|cannot connect|Connection refused/),
    ]);
    const { partial, points } = readBenchDocument(file);
    expect(partial).toBe(true);
    expect(points[0]!.rounds.length).toBeGreaterThan(0);
  });

  it('is not lost by Ctrl-C', async () => {
    const file = inFolder('interrupted.json');
    const child = spawn(process.execPath, [
      program,
      'bench',
      mlp,
      '--duration',
      '100ms',
      '--rounds',
      '500',
      '--warm-up',
      '100ms',
      '-o',
      file,
    ]);
    let rounds = 0;
    child.stderr.on('data', (chunk: Buffer) => {
      rounds += chunk.toString().split('\n').length - 1;
      if (rounds >= 3) child.kill('SIGINT');
    });
    const [status] = (await once(child, 'close')) as [number];
    expect(status).toBe(130);
    const { partial, points } = readBenchDocument(file);
    expect([partial, points[0]!.rounds.length >= 3]).toEqual([true, true]);
  });
});

describe('inputs', () => {
  const specs = [
    { name: 'x', dtype: 'float32', shape: ['n', 3] },
    { name: 'ids', dtype: 'int64', shape: ['n', 'tokens'] },
  ] as const;
  const npy = (descr: string, shape: string, data: Uint8Array): Buffer => {
    const header =
      `{'descr': '${descr}', 'fortran_order': False, 'shape': (${shape}), }`.padEnd(117) + '\n';
    const head = Buffer.alloc(10);
    head.write('\x93NUMPY\x01\x00', 'latin1');
    head.writeUInt16LE(header.length, 8);
    return Buffer.concat([head, Buffer.from(header), data]);
  };
  const floats = Float32Array.of(1, 2, 3, 4, 5, 6);

  it('are made up the same each time, in the shapes that are asked for', async () => {
    const choices = { batch: 4, dimensions: { tokens: 5 }, seed: 3 };
    const [a, b] = [await makeInputs(specs, choices), await makeInputs(specs, choices)];
    expect(a['x']!.shape).toEqual([4, 3]);
    expect(a['ids']!.shape).toEqual([4, 5]);
    expect(a).toEqual(b);
    expect(await makeInputs(specs, { ...choices, seed: 4 })).not.toEqual(a);
  });

  it('come from .npy, .npz and .json, repeated to as many rows as there shall be', async () => {
    const write = (name: string, bytes: Uint8Array | string): string => {
      writeFileSync(inFolder(name), bytes);
      return inFolder(name);
    };
    const x = npy('<f4', '2, 3', new Uint8Array(floats.buffer));
    const ids = npy('<i8', '1, 2', new Uint8Array(BigInt64Array.of(7n, 8n).buffer));
    const json = {
      x: [
        [1, 2, 3],
        [4, 5, 6],
      ],
      ids: [[7, 8]],
    };
    const all: Record<string, string>[] = [
      { x: write('x.npy', x), ids: write('ids.npy', ids) },
      { '': write('both.npz', zipSync({ 'x.npy': x, 'ids.npy': ids })) },
      { '': write('both.json', JSON.stringify(json)) },
    ];
    for (const files of all) {
      const inputs = await makeInputs(specs, { batch: 3, files, seed: 1 });
      expect(inputs['x']!.data).toEqual(Float32Array.of(1, 2, 3, 4, 5, 6, 1, 2, 3));
      expect(inputs['ids']!.shape).toEqual([3, 2]);
      expect(inputs['ids']!.data).toEqual(BigInt64Array.of(7n, 8n, 7n, 8n, 7n, 8n));
    }
    for (const [files, message] of [
      [{ x: write('be.npy', npy('>f4', '2, 3', new Uint8Array(24))) }, 'big-endian'],
      [{ x: write('short.npy', npy('<f4', '2, 3', new Uint8Array(8))) }, 'takes 24 bytes'],
      [{ x: write('f8.npy', npy('<f8', '1, 3', new Uint8Array(24))) }, 'expected float32'],
      [{ x: write('odd.npy', npy('<f4', '1, 4', new Uint8Array(16))) }, 'does not fit'],
      [{ '': write('bad.json', '{"y": [1]}') }, 'no such input'],
      [{ '': write('ragged.json', '{"x": [[1], [2, 3]]}') }, 'different lengths'],
      [{ '': write('bad.npz', 'zip') }, 'is no .npz'],
    ] as const) {
      await expect(makeInputs(specs, { batch: 1, files, seed: 1 })).rejects.toThrow(message);
    }
  });

  it('come from images, planes or pixels', async () => {
    const png = new PNG({ width: 2, height: 2 });
    png.data.set([255, 0, 0, 255, 0, 255, 0, 255, 0, 0, 255, 255, 255, 255, 255, 255]);
    writeFileSync(inFolder('four.png'), PNG.sync.write(png));
    const files = { image: inFolder('four.png') };
    const of = async (dtype: 'float32' | 'uint8', shape: number[]): Promise<unknown> =>
      (
        await makeInputs([{ name: 'image', dtype, shape: ['n', ...shape] }], {
          batch: 1,
          files,
          seed: 1,
        })
      )['image']!.data;
    expect(await of('float32', [3, 2, 2])).toEqual(
      Float32Array.of(1, 0, 0, 1, 0, 1, 0, 1, 0, 0, 1, 1),
    );
    expect(await of('uint8', [2, 2, 3])).toEqual(
      Uint8Array.of(255, 0, 0, 0, 255, 0, 0, 0, 255, 255, 255, 255),
    );
  });
});

describe('the cost model', () => {
  it('is found again where it is true, and predicts between the points', () => {
    const truth = (d: number, batch: number, threads: number): number =>
      20 + 40 / threads + 0.002 * batch * d + (0.03 * batch * d) / threads;
    const samples = [1, 2, 8, 32].flatMap((batch) =>
      [1, 2, 4].flatMap((threads) =>
        [100, 400].map((d) => ({ d, batch, threads, us: truth(d, batch, threads) })),
      ),
    );
    const model = fitCost(samples);
    expect(model.parameters.a).toBeCloseTo(20, 3);
    expect(model.parameters.k).toBeCloseTo(0.03, 6);
    const at = { d: 200, batch: 5, threads: 3 };
    expect(model.predict(at)).toBeCloseTo(truth(200, 5, 3), 3);
    // Nothing below zero, whatever the noise.
    const noisy = fitCost(
      samples.map((sample, i) => ({ ...sample, us: sample.us * (1 + (i % 3) / 10) })),
    );
    expect(Object.values(noisy.parameters).every((value) => value >= 0)).toBe(true);
  });
});
