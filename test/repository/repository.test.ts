// The repository: versions, policies, control modes, swaps and failures, on real folders.
import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import {
  createEngine,
  stats,
  type Engine,
  type Repository,
  type RepositoryEvent,
  type RepositoryOptions,
  type Tensor,
} from 'tercel';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { benchModel } from '../../models/generate.js';
import { encodeModel, FLOAT, floats } from '../../models/onnx.js';
import { identity, slow, modelOf, servedModel } from '../support/models.js';
import { hasSharedModels, sharedModels } from '../support/shared.js';
import { until } from '../support/wait.js';

/** y = x + value. */
function plus(value: number): Uint8Array {
  return encodeModel({
    name: 'plus',
    inputs: { x: { tensor: FLOAT, shape: ['n', 2] } },
    outputs: { y: { tensor: FLOAT, shape: ['n', 2] } },
    initializers: [floats('value', [1], Float32Array.of(value))],
    nodes: [{ op: 'Add', inputs: ['x', 'value'], outputs: ['y'] }],
  });
}

const x: Tensor = { dtype: 'float32', shape: [1, 2], data: new Float32Array(2) };
let folder: string;
let engine: Engine;
let events: RepositoryEvent[];

function write(file: string, content: string | Uint8Array): void {
  const full = path.join(folder, file);
  mkdirSync(path.dirname(full), { recursive: true });
  // As a deployment should do it: whole or not at all.
  writeFileSync(`${full}.draft`, content);
  renameSync(`${full}.draft`, full);
}
const open = (options: RepositoryOptions = {}): Promise<Repository> =>
  engine.loadRepository(folder, { onEvent: (event) => events.push(event), ...options });
const answer = async (version?: string): Promise<number> =>
  (await engine.infer('m', { x }, { version }))['y']!.data[0] as number;

beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'tercel-repository-'));
  engine = createEngine();
  events = [];
});
afterEach(async () => {
  await engine.close();
  rmSync(folder, { recursive: true });
});

describe('versions', () => {
  beforeEach(() => {
    for (const version of [1, 2, 10]) write(`m/${version}/model.onnx`, plus(version));
  });

  it.each([
    [undefined, ['10']],
    [{ versions: { latest: 2 } }, ['2', '10']],
    [{ versions: 'all' }, ['1', '2', '10']],
    [{ versions: { specific: [1, 2] } }, ['1', '2']],
  ])('are served as the policy %j says', async (config, versions) => {
    if (config) write('m/model.json', JSON.stringify(config));
    await open();
    expect(engine.versions('m')).toEqual(versions);
    expect(await answer()).toBe(Number(versions.at(-1)));
    for (const version of versions) expect(await answer(version)).toBe(Number(version));
  });

  it('have labels', async () => {
    write('m/model.json', '{"versions": "all", "labels": {"stable": 2, "canary": 10}}');
    await open();
    expect(await answer('stable')).toBe(2);
    expect(await answer('canary')).toBe(10);
    await expect(answer('beta')).rejects.toThrow('model "m" has no version beta; it has 1, 2, 10');
  });
});

describe('with control "none"', () => {
  it('serves what is there, and says why the rest is not', async () => {
    write('m/1/model.onnx', plus(1));
    write('broken/1/model.onnx', 'no model');
    write('wrong/1/model.onnx', plus(1));
    write('wrong/model.json', '{"lanes": "many"}');
    write('empty/model.json', '{}');
    write('.hidden/1/model.onnx', plus(1));
    write('README.md', 'a file');
    const repository = await open();
    expect(engine.names()).toEqual(['m']);
    const index = await repository.index();
    expect(index.map(({ name, state }) => `${name} ${state}`)).toEqual([
      'broken UNAVAILABLE',
      'empty UNAVAILABLE',
      'm READY',
      'wrong UNAVAILABLE',
    ]);
    expect(index[0]!.reason).toContain('cannot load model');
    expect(index[1]!.reason).toContain('model "empty" has no version');
    expect(index[3]!.reason).toContain('lanes: expected number, received string');
    expect((await repository.index(true)).map(({ name }) => name)).toEqual(['m']);
  });

  it('ends with the first failure where that is wanted', async () => {
    write('broken/1/model.onnx', 'no model');
    await expect(open({ strict: true })).rejects.toThrow('cannot load model');
  });
});

describe('with control "poll"', () => {
  it('loads what is new, swaps what changed, unloads what is gone', async () => {
    write('m/1/model.onnx', plus(1));
    const repository = await open({ control: 'poll', pollMs: 100_000 });
    expect(await answer()).toBe(1);

    write('m/2/model.onnx', plus(2));
    await repository.poll();
    expect(await answer()).toBe(2);
    expect(engine.versions('m')).toEqual(['2']);

    write('m/2/model.onnx', plus(3));
    await repository.poll();
    expect(await answer()).toBe(3);

    write('m/model.json', '{"versions": "all"}');
    await repository.poll();
    expect(engine.versions('m')).toEqual(['1', '2']);

    const loads = events.filter(({ kind }) => kind === 'loaded').length;
    await repository.poll();
    expect(events.filter(({ kind }) => kind === 'loaded').length).toBe(loads);

    rmSync(path.join(folder, 'm'), { recursive: true });
    await repository.poll();
    expect(engine.names()).toEqual([]);
    await expect(answer()).rejects.toThrow('model "m" does not exist');
  });

  it('keeps the old version when the new one fails to load or to warm', async () => {
    write('m/1/model.onnx', plus(1));
    const repository = await open({ control: 'poll', pollMs: 100_000 });
    write('m/2/model.onnx', 'no model');
    await repository.poll();
    await repository.poll();
    expect(await answer()).toBe(1);
    expect(await repository.index()).toMatchObject([
      { version: '1', state: 'READY', reason: '' },
      {
        version: '2',
        state: 'UNAVAILABLE',
        reason: expect.stringContaining('cannot load') as string,
      },
    ]);
    // Tried once: it is tried again when it changes.
    expect(events.filter(({ kind }) => kind === 'failed').length).toBe(1);

    write('m/2/model.onnx', plus(2));
    write('m/model.json', '{"warmUp": [{"shapes": {"x": [3]}}]}');
    await repository.poll();
    expect(await answer()).toBe(1);
    expect((await repository.index())[1]!.reason).toMatch(/warm-up with x float32\[1,3\]/);

    write('m/model.json', '{"warmUp": [{"shapes": {"x": [2]}, "batch": 3}]}');
    await repository.poll();
    expect(await answer()).toBe(2);
    // The same version, replaced by one that does not load: what was there goes on.
    write('m/2/model.onnx', 'no model');
    await repository.poll();
    expect(await answer()).toBe(2);
    expect(await repository.index()).toContainEqual({
      name: 'm',
      version: '2',
      state: 'READY',
      reason: expect.stringContaining('serving what was loaded before') as string,
    });
  });

  it('looks by itself', async () => {
    write('m/1/model.onnx', plus(1));
    await open({ control: 'poll', pollMs: 30 });
    write('m/2/model.onnx', plus(2));
    await until(async () => (await answer()) === 2);
  });
});

describe('with control "explicit"', () => {
  it('loads and unloads what it is told', async () => {
    write('m/1/model.onnx', plus(1));
    write('other/1/model.onnx', plus(5));
    const repository = await open({ control: 'explicit', models: ['other'] });
    expect(engine.names()).toEqual(['other']);
    await repository.load('m');
    expect(await answer()).toBe(1);
    write('m/1/model.onnx', plus(4));
    await repository.load('m');
    expect(await answer()).toBe(4);
    expect(await repository.unload('m')).toBe(true);
    expect(await repository.unload('m')).toBe(false);
    expect(await repository.index()).toMatchObject([
      { name: 'm', version: '1', state: 'UNAVAILABLE', reason: 'unloaded' },
      { name: 'other', version: '1', state: 'READY' },
    ]);
    await expect(repository.load('nope')).rejects.toThrow('model "nope" has no version');
    await expect(repository.load('../m')).rejects.toThrow('is no name of a model');
  });

  it('takes a configuration and the model’s bytes in the call', async () => {
    write('m/1/model.onnx', plus(1));
    const repository = await open({ control: 'explicit', models: ['*'] });
    await repository.load('m', { config: '{"lanes": 3, "batching": {"maxBatch": 5}}' });
    expect(modelOf(engine, 'm').stats().batching.maxBatch).toBe(5);
    await repository.load('m', {
      config: '{"backend": "onnxruntime", "max_batch_size": 2, "version_policy": {"all": {}}}',
      files: new Map([
        ['7/model.onnx', plus(7)],
        ['8/model.onnx', plus(8)],
      ]),
    });
    expect(engine.versions('m')).toEqual(['7', '8']);
    expect(await answer('7')).toBe(7);
    await expect(
      repository.load('m', { config: '{}', files: new Map([['9/model.onnx', Buffer.from('x')]]) }),
    ).rejects.toThrow('cannot load');
    expect(await answer()).toBe(8);
    await repository.load('m');
    expect(await answer()).toBe(1);
  });

  it('may unload during a load, and load during an unload', async () => {
    write('m/1/model.onnx', plus(1));
    const repository = await open({ control: 'explicit' });
    const changes = [
      repository.load('m'),
      repository.unload('m'),
      repository.load('m'),
      repository.load('m'),
      repository.unload('m'),
      repository.load('m'),
    ];
    await Promise.all(changes);
    expect(await answer()).toBe(1);
  });
});

describe('a swap', () => {
  it('lets what is under way end on the old version, and gives its memory back', async () => {
    write('m/1/model.onnx', slow());
    write('m/model.json', '{"lanes": 1}');
    const repository = await open({ control: 'explicit', models: ['m'] });
    const inputs = {
      x: { dtype: 'float32', shape: [64, 64], data: new Float32Array(4096) },
      rounds: { dtype: 'int64', shape: [], data: new BigInt64Array([40_000n]) },
    } as unknown as Record<string, Tensor>;
    const old = modelOf(engine, 'm');
    const running = engine.infer('m', inputs);
    const queued = engine.infer('m', inputs);
    write('m/2/model.onnx', identity(FLOAT, ['n', 2]));
    await repository.load('m');
    expect(old.closed).toBe(true);
    expect(await answer()).toBe(0);
    await Promise.all([running, queued]);
    // Its session goes once nothing runs on it.
    while (stats().models.length > 1) await new Promise((resolve) => setTimeout(resolve, 5));
  });

  it('loses no request, ten times under load', async () => {
    write('m/1/model.onnx', plus(1));
    const repository = await open({ control: 'explicit', models: ['m'] });
    let going = true;
    let failed = 0;
    let answered = 0;
    const seen = new Set<number>();
    const client = async (): Promise<void> => {
      while (going) {
        try {
          seen.add(await answer());
          answered++;
        } catch {
          failed++;
        }
        if (answered % 64 === 0) await new Promise((resolve) => setImmediate(resolve));
      }
    };
    const clients = Array.from({ length: 32 }, client);
    for (let version = 2; version <= 11; version++) {
      write(`m/${version}/model.onnx`, plus(version));
      await repository.load('m');
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    going = false;
    await Promise.all(clients);
    expect(failed).toBe(0);
    expect([...seen].sort((a, b) => a - b)).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
    expect(engine.versions('m')).toEqual(['11']);
  });
});

describe('a warm-up', () => {
  it('may bring its data in files', async () => {
    write('m/1/model.onnx', plus(1));
    write('m/model.json', '{"warmUp": [{"files": {"x": "two"}, "dimensions": {"n": 1}}]}');
    write('m/warmup/two', new Uint8Array(8));
    await open();
    expect(await answer()).toBe(1);
    write('n/1/model.onnx', plus(1));
    write('n/model.json', '{"warmUp": [{"files": {"x": "../../m/warmup/two"}}]}');
    await engine.repository!.load('n').catch((error: Error) => {
      expect(error.message).toContain('is not below');
    });
    write('n/warmup/one', new Uint8Array(4));
    write('n/model.json', '{"warmUp": [{"files": {"x": "one"}}]}');
    await expect(engine.repository!.load('n')).rejects.toThrow('needs 8 bytes, 4 were given');
  });

  it('may lie in a folder that is named from here', async () => {
    write('m/1/model.onnx', plus(1));
    write('m/model.json', '{"warmUp": [{"files": {"x": "two"}}]}');
    write('m/warmup/two', new Uint8Array(8));
    await engine.loadRepository(path.relative(process.cwd(), folder), { strict: true });
    expect(await answer()).toBe(1);
  });

  it('holds the configuration against the model', async () => {
    write('m/1/model.onnx', plus(1));
    for (const [config, message] of [
      ['{"inputs": [{"name": "z", "dtype": "float32"}]}', 'declares input "z"; the model has "x"'],
      [
        '{"outputs": [{"name": "y", "dtype": "int8"}]}',
        'declares output "y" as int8; the model has float32[n,2]',
      ],
      ['{"inputs": [{"name": "x", "dtype": "float32", "shape": [-1, 3]}]}', 'as float32[-1,3]'],
    ] as const) {
      write('m/model.json', config);
      const repository = engine.repository ?? (await open({ control: 'explicit' }));
      await expect(repository.load('m')).rejects.toThrow(message);
    }
  });
});

describe.skipIf(!hasSharedModels)('Triton’s sample repository', () => {
  it('serves as it lies there', async () => {
    cpSync(path.join(sharedModels, 'triton-repository'), folder, { recursive: true });
    await open({ strict: true });
    expect(engine.names().sort()).toEqual(['simple', 'simple_int8', 'simple_string']);
    const a = Int32Array.from({ length: 16 }, (_, i) => i);
    const b = new Int32Array(16).fill(1);
    const ints = (data: Int32Array): Tensor => ({ dtype: 'int32', shape: [1, 16], data });
    const sums = await engine.infer('simple', { INPUT0: ints(a), INPUT1: ints(b) });
    expect([...(sums['OUTPUT0']!.data as Int32Array)]).toEqual([...a].map((v) => v + 1));
    expect([...(sums['OUTPUT1']!.data as Int32Array)]).toEqual([...a].map((v) => v - 1));
    const texts = (data: Int32Array): Tensor => ({
      dtype: 'string',
      shape: [1, 16],
      data: [...data].map(String),
    });
    const strings = await engine.infer('simple_string', { INPUT0: texts(a), INPUT1: texts(b) });
    expect(strings['OUTPUT0']!.data).toEqual([...a].map((v) => String(v + 1)));
    const bytes = (data: Int32Array): Tensor => ({
      dtype: 'int8',
      shape: [1, 16],
      data: Int8Array.from(data),
    });
    const small = await engine.infer('simple_int8', { INPUT0: bytes(a), INPUT1: bytes(b) });
    expect([...(small['OUTPUT1']!.data as Int8Array)]).toEqual([...a].map((v) => v - 1));
    expect(events.filter(({ kind }) => kind === 'warning')).toEqual([]);
  });
});

describe('one file under two names', () => {
  it('has two policies', async () => {
    write('m/1/model.onnx', plus(1));
    write('m/model.json', '{"batching": {"maxBatch": 4}}');
    mkdirSync(path.join(folder, 'n'));
    symlinkSync(path.join(folder, 'm', '1'), path.join(folder, 'n', '1'));
    write('n/model.json', '{"batching": {"maxBatch": 9}}');
    await open({ strict: true });
    expect(modelOf(engine, 'm').stats().batching.maxBatch).toBe(4);
    expect(modelOf(engine, 'n').stats().batching.maxBatch).toBe(9);
  });
});

describe('createEngine', () => {
  it('loads by name, and replaces on request', async () => {
    await engine.load('m', plus(1));
    await expect(engine.load('m', plus(2))).rejects.toThrow(
      'model "m" version 1 is loaded already',
    );
    await engine.load('m', plus(2), { replace: true });
    expect(await answer()).toBe(2);
    expect(await engine.unload('m')).toBe(true);
    expect(await engine.unload('m')).toBe(false);
    expect(() => createEngine({ threads: 1 } as object)).toThrow('option "threads" does not exist');
    await engine.load('tiny', benchModel('tiny'), { warmUp: [{ batch: 2 }, { batch: 4 }] });
    expect(servedModel(engine, 'tiny').since).toBeGreaterThan(0);
  });
});
