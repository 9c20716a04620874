// loadModel(): sources, options, providers, sharing, and libraries that are not right.
import { execFile } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import {
  availableProviders,
  configure,
  InvalidInputError,
  loadModel,
  ModelError,
  providerDevices,
  registerProvider,
  stats,
  type ModelOptions,
  type Tensor,
} from 'tercel';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { benchModel } from '../../models/generate.js';
import { encodeModel, FLOAT } from '../../models/onnx.js';
import { identity } from '../support/models.js';
import { collectGarbage } from '../support/garbage.js';

const run = promisify(execFile);
const root = fileURLToPath(new URL('../..', import.meta.url));
let folder: string;
beforeAll(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'tercel-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

const one: Tensor = { dtype: 'float32', shape: [1, 4], data: new Float32Array(4).fill(1) };

/** y = x + w, with w in a file beside the model. */
function withExternalData(): { model: Uint8Array; weights: Uint8Array } {
  const weights = new Uint8Array(Float32Array.from([10, 20, 30, 40]).buffer);
  const model = encodeModel({
    name: 'external',
    inputs: { x: { tensor: FLOAT, shape: [1, 4] } },
    outputs: { y: { tensor: FLOAT, shape: [1, 4] } },
    initializers: [
      {
        name: 'w',
        dims: [4],
        dataType: FLOAT,
        dataLocation: 1,
        externalData: [
          { key: 'location', value: 'weights.bin' },
          { key: 'offset', value: '0' },
          { key: 'length', value: '16' },
        ],
      },
    ],
    nodes: [{ op: 'Add', inputs: ['x', 'w'], outputs: ['y'] }],
  });
  return { model, weights };
}

const built = path.join(root, 'build/tests');
const plugin = path.join(built, 'libfake_plugin.so');

describe.skipIf(process.platform !== 'linux')('plugin providers', () => {
  it('are registered, offer devices and take models', async () => {
    const devices = registerProvider(plugin);
    expect(devices).toMatchObject([
      {
        provider: 'FakeExecutionProvider',
        vendor: "Tercel's tests",
        type: 'cpu',
        metadata: { version: '1.2.3', library_path: plugin },
        options: { level: '7' },
      },
      { provider: 'TensorrtExecutionProvider' },
    ]);
    expect(registerProvider(path.relative(process.cwd(), plugin))).toEqual(devices);
    expect(providerDevices().map(({ provider }) => provider)).toEqual(
      expect.arrayContaining(['CPUExecutionProvider', 'FakeExecutionProvider']),
    );
    for (const name of ['fake', 'FakeExecutionProvider']) {
      await using model = await loadModel(benchModel('tiny'), { providers: [name, 'cpu'] });
      expect(model.providers).toEqual([name, 'cpu']);
      expect((await model.run({ x: one }))['y']!.shape).toEqual([1, 4]);
    }
    // Its options reach it, and what it says reaches the caller.
    const refusing = { name: 'fake', options: { refuse: 'not today' } };
    await expect(loadModel(benchModel('tiny'), { providers: [refusing] })).rejects.toThrow(
      /^cannot load model .*not today/,
    );
    const second = { name: 'fake', device: 1 };
    await expect(loadModel(benchModel('tiny'), { providers: [second] })).rejects.toThrow(
      'provider "fake" cannot be loaded: it offers 1 devices, counted from 0: there is no 1',
    );
  });

  it('can be named by their library', async () => {
    const byFile = (name: string, library: string): ModelOptions => ({
      providers: [{ name, library }, 'cpu'],
    });
    await using model = await loadModel(benchModel('tiny'), byFile('fake', plugin));
    expect(model.providers).toEqual(['fake', 'cpu']);
    await expect(loadModel(benchModel('tiny'), byFile('cuda', plugin))).rejects.toThrow(
      `"${plugin}" offers devices of FakeExecutionProvider, TensorrtExecutionProvider`,
    );
    await expect(loadModel(benchModel('tiny'), byFile('fake', '/nope.so'))).rejects.toThrow(
      /provider library "\/nope.so" cannot be registered: .*nope.so/,
    );
    expect(() => registerProvider(path.join(built, 'libfake_provider.so'))).toThrow(ModelError);
    await expect(
      loadModel(benchModel('tiny'), { providers: [{ name: 'fake', device: -1 }] }),
    ).rejects.toThrow('fake.device: expected a whole number of 0 or more, got -1');
  });
});

describe('sources', () => {
  it('are a path, or bytes that are copied', async () => {
    await using byPath = await loadModel(benchModel('tiny'));
    const bytes = new Uint8Array(readFileSync(benchModel('tiny')));
    const loading = loadModel(bytes);
    bytes.fill(0);
    await using byBytes = await loading;
    expect(byBytes.runSync({ x: one })).toEqual(byPath.runSync({ x: one }));
    expect(byPath.metadata).toMatchObject({ producer: 'tercel', graph: 'tiny' });
  });

  it('may keep their weights in other files', async () => {
    const { model, weights } = withExternalData();
    const file = path.join(folder, 'external.onnx');
    writeFileSync(file, model);
    await expect(loadModel(file)).rejects.toThrow(ModelError);
    writeFileSync(path.join(folder, 'weights.bin'), weights);
    await using fromPath = await loadModel(file);
    expect([...(fromPath.runSync({ x: one })['y']!.data as Float32Array)]).toEqual([
      11, 21, 31, 41,
    ]);
    await using fromBytes = await loadModel(model, { externalData: { 'weights.bin': weights } });
    expect([...(fromBytes.runSync({ x: one })['y']!.data as Float32Array)]).toEqual([
      11, 21, 31, 41,
    ]);
    await expect(loadModel(model)).rejects.toThrow(/weights\.bin/);
  });

  it('that are wrong say so', async () => {
    await expect(loadModel('/nope/model.onnx')).rejects.toThrow(
      'cannot load model "/nope/model.onnx": ENOENT',
    );
    await expect(loadModel(folder)).rejects.toThrow(ModelError);
    await expect(loadModel(new Uint8Array(0))).rejects.toThrow(/cannot load model of 0 bytes/);
    await expect(loadModel(new TextEncoder().encode('no model'))).rejects.toThrow(ModelError);
    await expect(loadModel(7 as unknown as string)).rejects.toThrow(InvalidInputError);
  });
});

describe('options', () => {
  it('that do not exist or fit are named', async () => {
    const load = (options: unknown): Promise<unknown> =>
      loadModel(benchModel('tiny'), options as ModelOptions);
    await expect(load({ treads: 2 })).rejects.toThrow('option "treads" does not exist');
    await expect(load({ threads: -1 })).rejects.toThrow(
      'option "threads": expected a whole number',
    );
    await expect(load({ graphLevel: 'some' })).rejects.toThrow(
      'option "graphLevel": expected one of none',
    );
    await expect(load({ providers: [{}] })).rejects.toThrow('option "providers": expected a name');
    await expect(load({ freeDimensions: { batch: 'x' } })).rejects.toThrow(InvalidInputError);
    await expect(load({ customOpLibraries: [Symbol('x')] })).rejects.toThrow(
      'expected an array of paths',
    );
    await expect(
      load({ providers: [{ name: 'cuda', options: { a: Symbol('x') } }] }),
    ).rejects.toThrow('cuda.a must be a string, number or boolean');
    await expect(load({ logLevel: 'loud' })).rejects.toThrow('logLevel: expected');
    await expect(load({ config: { 'session.nope': 1 } })).rejects.toThrow('strings by key');
  });

  it('all reach the session', async () => {
    const optimized = path.join(folder, 'optimized.onnx');
    await using model = await loadModel(benchModel('mlp'), {
      threads: 2,
      interOpThreads: 2,
      executionMode: 'parallel',
      spinning: true,
      graphLevel: 'extended',
      affinity: '1',
      memory: 'ort',
      memoryPattern: false,
      deterministic: true,
      freeDimensions: { batch: 3 },
      config: { 'session.set_denormal_as_zero': '1' },
      optimizedModelPath: optimized,
      lanes: 1,
      maxQueue: 4,
      inline: 'never',
    });
    expect(model.inputs[0]!.shape).toEqual([3, 784]);
    expect(readFileSync(optimized).length).toBeGreaterThan(900_000);
    const x: Tensor = { dtype: 'float32', shape: [3, 784], data: new Float32Array(3 * 784) };
    expect((await model.run({ x }))['y']!.shape).toEqual([3, 10]);
    await expect(
      loadModel(benchModel('mlp'), { threads: 2, affinity: 'nonsense' }),
    ).rejects.toThrow(ModelError);
  });

  it('write a profile, and name a library of operators that cannot be loaded', async () => {
    const prefix = path.join(folder, 'profile');
    const model = await loadModel(benchModel('tiny'), { profilePrefix: prefix });
    model.runSync({ x: one });
    await model.close();
    const files = readdirSync(folder).filter((name) => name.startsWith('profile'));
    expect(files.length).toBe(1);
    expect(readFileSync(path.join(folder, files[0]!), 'utf8')).toContain('model_run');
    await expect(
      loadModel(benchModel('tiny'), { customOpLibraries: ['/nope/operators.so'] }),
    ).rejects.toThrow(/custom operators "\/nope\/operators.so"/);
  });

  it('give the same numbers wherever memory comes from, and only our arena counts it', async () => {
    const x: Tensor = { dtype: 'float32', shape: [2, 784], data: new Float32Array(1568).fill(0.3) };
    const results = [];
    for (const memory of ['tercel', 'ort', 'malloc'] as const) {
      await collectGarbage();
      const before = stats().arena;
      await using model = await loadModel(benchModel('mlp'), { memory });
      const weights = stats().arena.leasedBytes - before.leasedBytes;
      if (memory === 'tercel') expect(weights).toBeGreaterThan(900_000);
      else expect(weights).toBe(0);
      results.push([...(model.runSync({ x })['y']!.data as Float32Array)]);
    }
    expect(results[1]).toEqual(results[0]);
    expect(results[2]).toEqual(results[0]);
  });

  it('cancel a load', async () => {
    await expect(
      loadModel(benchModel('resnet'), { signal: AbortSignal.abort(new Error('changed my mind')) }),
    ).rejects.toThrow('changed my mind');
    const controller = new AbortController();
    const loading = loadModel(benchModel('resnet'), { signal: controller.signal });
    setTimeout(() => controller.abort(new Error('changed my mind')), 5);
    await expect(loading).rejects.toThrow('changed my mind');
    expect(stats().models).toEqual([]);
  });
});

describe('providers', () => {
  it('that cannot be loaded are an error, or with fallback a warning', async () => {
    expect(availableProviders()).toContain('CPUExecutionProvider');
    for (const [provider, reason] of [
      ['cuda', /provider "cuda" cannot be loaded/],
      ['tensorrt', /provider "tensorrt" cannot be loaded/],
      [
        'quantum',
        /provider "quantum" cannot be loaded: this ONNX Runtime library was built without it/,
      ],
    ] as const) {
      await expect(loadModel(benchModel('tiny'), { providers: [provider, 'cpu'] })).rejects.toThrow(
        reason,
      );
      const warning = new Promise<Error>((resolve) => process.once('warning', resolve));
      await using model = await loadModel(benchModel('tiny'), {
        providers: [{ name: provider, options: {} }, 'cpu'],
        fallback: true,
      });
      expect(model.providers).toEqual(['cpu']);
      expect(model.warnings[0]).toMatch(reason);
      expect((await warning).message).toMatch(reason);
      expect(model.runSync({ x: one })['y']!.shape).toEqual([1, 4]);
    }
  });
});

describe('sharing', () => {
  it('makes one session of the same path and options', async () => {
    const models = await Promise.all([1, 2, 3].map(() => loadModel(benchModel('mlp'))));
    expect(stats().models.length).toBe(1);
    const other = await loadModel(benchModel('mlp'), { graphLevel: 'basic' });
    expect(stats().models.length).toBe(2);
    await models[0]!.close();
    expect(stats().models.length).toBe(2);
    await Promise.all([...models, other].map((model) => model.close()));
    expect(stats().models.length).toBe(0);
  });

  it('takes a replaced file for another model', async () => {
    const file = path.join(folder, 'replaced.onnx');
    writeFileSync(file, identity(1));
    await using first = await loadModel(file);
    writeFileSync(file, identity(11, ['m', 'n']));
    await using second = await loadModel(file);
    expect(first.inputs[0]!.dtype).toBe('float32');
    expect(second.inputs[0]!.dtype).toBe('float64');
  });
});

describe('the library', () => {
  const load = `
    import { loadModel } from ${JSON.stringify(new URL('../../dist/index.js', import.meta.url).href)};
    try {
      const model = await loadModel(${JSON.stringify(benchModel('tiny'))});
      console.log('loaded', model.inputs.length);
    } catch (error) {
      console.log(error.name + ': ' + error.message);
    }`;
  const withLibrary = async (library: string): Promise<string> => {
    const { stdout } = await run(process.execPath, ['--input-type=module', '-e', load], {
      env: { ...process.env, TERCEL_ORT_LIBRARY: library },
    });
    return stdout.trim();
  };
  const fixture = (name: string): string => path.join(root, 'build', 'tests', name);

  it('that is missing, broken, too old or something else gives one sentence', async () => {
    const text = path.join(folder, 'text.so');
    writeFileSync(text, 'this is no library');
    const cut = path.join(folder, 'cut.so');
    writeFileSync(cut, readFileSync(stats().library!.path).subarray(0, 1_000_000));
    for (const [file, reason] of [
      ['/nope/libonnxruntime.so', /cannot open shared object file/],
      [text, /invalid ELF header|file too short/],
      [cut, /the file is cut short/],
      [fixture('libfake_empty.so'), /it has no OrtGetApiBase, so it is not an ONNX Runtime/],
      [fixture('libfake_old.so'), /it is version 1\.14\.1, Tercel needs 1\.22 or newer/],
      [fixture('libfake_refusing.so'), /it is version 1\.30\.0 but refuses API 30/],
    ] as const) {
      const said = await withLibrary(file);
      expect(said).toMatch(/^ModelError: cannot use ONNX Runtime library "/);
      expect(said).toMatch(reason);
      expect(said.split('\n').length).toBe(1);
    }
  });

  it('may be named by TERCEL_ORT_LIBRARY', async () => {
    expect(await withLibrary(stats().library!.path)).toBe('loaded 1');
  });

  it('is fixed once it runs', () => {
    expect(() => configure({ library: '/other.so' })).toThrow('configure() comes too late');
  });
});
