// TensorRT's engines are kept, built once for all processes, and swapped in. What builds them here is not
// TensorRT but a plugin that takes its time and writes a file; where, when and by whom is what is tested.
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import {
  configure,
  createEngine,
  loadModel,
  stats,
  type GpuOptions,
  type ModelOptions,
  type ProviderSpec,
  type RepositoryEvent,
  type Tensor,
} from 'tercel';
import { afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { benchModel } from '../../models/generate.js';
import { encodeModel, FLOAT } from '../../models/onnx.js';
import { modelOf } from '../support/models.js';
import { fakeCuda } from '../support/process.js';
import { PATIENCE_MS, until } from '../support/wait.js';

const plugin = fileURLToPath(new URL('../../build/tests/libfake_plugin.so', import.meta.url));
const tiny = benchModel('tiny');
const x: Tensor = { dtype: 'float32', shape: [1, 4], data: new Float32Array(4) };

let scratch: string;
let cache: string;
const withTensorRt = (gpu: GpuOptions = {}): ModelOptions => ({
  providers: [{ name: 'tensorrt', library: plugin }, 'cpu'],
  // Its session computes on the CPU: there is nothing to copy to.
  gpu: { slots: 0, engineCache: cache, ...gpu },
});
const folders = (): string[] =>
  existsSync(cache) ? readdirSync(cache).filter((name) => /^[0-9a-f]{32}$/.test(name)) : [];
const log = (): string[] => {
  const file = path.join(cache, 'builds.log');
  return existsSync(file) ? readFileSync(file, 'utf8').trim().split('\n') : [];
};

const children: ChildProcess[] = [];

/** Loads the tiny model in a process of its own, and prints how long that took. */
function loader(env: Record<string, string>): ChildProcess {
  const index = new URL('../../dist/index.js', import.meta.url).href;
  const program = `
    import { configure, loadModel } from ${JSON.stringify(index)};
    configure({ arena: { pin: ${JSON.stringify(fakeCuda)} } });
    const start = performance.now();
    const model = await loadModel(${JSON.stringify(tiny)}, ${JSON.stringify(withTensorRt())});
    console.log(performance.now() - start);
    await model.close();`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', program], {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { ...process.env, ...env },
  });
  children.push(child);
  return child;
}

/** y = x + w, with w in a file. */
function withExternalWeights(location: string): Uint8Array {
  const type = { tensor: FLOAT, shape: [1, 4] };
  return encodeModel({
    name: 'external',
    inputs: { x: type },
    outputs: { y: type },
    initializers: [
      {
        name: 'w',
        dims: [4],
        dataType: FLOAT,
        dataLocation: 1,
        externalData: [{ key: 'location', value: location }],
      },
    ],
    nodes: [{ op: 'Add', inputs: ['x', 'w'], outputs: ['y'] }],
  });
}

describe.skipIf(process.platform !== 'linux')("TensorRT's engines", () => {
  beforeAll(() => configure({ arena: { pin: fakeCuda } }));
  beforeEach(() => {
    scratch = mkdtempSync(path.join(tmpdir(), 'tercel-engines-'));
    cache = path.join(scratch, 'cache');
  });
  afterEach(async () => {
    for (const child of children.splice(0)) {
      if (child.exitCode !== null || child.signalCode !== null) continue;
      child.kill('SIGKILL');
      await once(child, 'exit');
    }
    delete process.env['FAKE_BUILD_MS'];
    delete process.env['FAKE_BUILD_FAILS'];
    rmSync(scratch, { recursive: true });
  });

  it('are kept for the next load of the same model, and of no other', async () => {
    for (let i = 0; i < 3; i++) {
      await using model = await loadModel(tiny, withTensorRt());
      expect(model.providers).toEqual(['tensorrt', 'cpu']);
      expect((await model.run({ x }))['y']!.shape).toEqual([1, 4]);
    }
    expect(log()).toEqual(['begun', 'ended']);
    expect(readdirSync(path.join(cache, folders()[0]!)).sort()).toEqual([
      'engine.json',
      'fake.engine',
    ]);
    expect(
      JSON.parse(readFileSync(path.join(cache, folders()[0]!, 'engine.json'), 'utf8')),
    ).toMatchObject({ capability: '8.6' });
    // What makes no other engine.
    mkdirSync(path.join(scratch, 'other'));
    const same = path.join(scratch, 'other', 'model.onnx');
    copyFileSync(tiny, same);
    await (await loadModel(same, withTensorRt())).close();
    await (await loadModel(tiny, withTensorRt({ device: 0, memoryLimit: 1e9 }))).close();
    expect(folders()).toHaveLength(1);
    // What does: the provider's file has the name of the model's in its own.
    copyFileSync(tiny, path.join(scratch, 'renamed.onnx'));
    await (await loadModel(path.join(scratch, 'renamed.onnx'), withTensorRt())).close();
    await (await loadModel(readFileSync(tiny), withTensorRt())).close();
    await (await loadModel(tiny, withTensorRt({ precision: 'fp16' }))).close();
    await (await loadModel(benchModel('mlp'), withTensorRt())).close();
    expect(folders()).toHaveLength(5);
  });

  it('are of the weights, wherever these lie', async () => {
    const load = async (file: string): Promise<void> => {
      await using model = await loadModel(file, withTensorRt());
      await model.run({ x });
    };
    const folder = path.join(scratch, 'external');
    mkdirSync(path.join(folder, 'data'), { recursive: true });
    const file = path.join(folder, 'model.onnx');
    writeFileSync(file, withExternalWeights('data/weights.bin'));
    const weights = path.join(folder, 'data', 'weights.bin');
    writeFileSync(weights, new Uint8Array(Float32Array.of(1, 2, 3, 4).buffer));
    symlinkSync(file, path.join(scratch, 'link.onnx'));
    await load(file);
    await load(path.join(scratch, 'link.onnx'));
    expect(folders()).toHaveLength(1);
    writeFileSync(weights, new Uint8Array(Float32Array.of(5, 6, 7, 8).buffer));
    await load(path.join(scratch, 'link.onnx'));
    expect(folders()).toHaveLength(2);
  });

  it('are not taken for whole where TensorRT was passed over', async () => {
    const [tensorRt, cpu] = withTensorRt().providers!;
    const refused = { ...(tensorRt as ProviderSpec), device: 9 };
    const options = { ...withTensorRt(), providers: [refused, cpu!], fallback: true };
    await using model = await loadModel(tiny, options);
    expect(model.providers).toEqual(['cpu']);
    expect(readdirSync(path.join(cache, folders()[0]!))).toEqual([]);
  });

  it('are not kept, with a warning, where the default folder cannot be used', async () => {
    writeFileSync(path.join(scratch, 'file'), '');
    process.env['XDG_CACHE_HOME'] = path.join(scratch, 'file');
    const warned = once(process, 'warning');
    try {
      const { gpu: _gpu, ...rest } = withTensorRt();
      await using model = await loadModel(tiny, { ...rest, gpu: { slots: 0 } });
      expect(model.providers).toEqual(['tensorrt', 'cpu']);
      const [warning] = (await warned) as [Error];
      expect(warning.message).toMatch(/^the cache of TensorRT's engines cannot be used: ENOTDIR/);
    } finally {
      delete process.env['XDG_CACHE_HOME'];
    }
  });

  it('are not kept where that is not wanted', async () => {
    await (await loadModel(tiny, withTensorRt({ engineCache: false }))).close();
    expect(folders()).toEqual([]);
  });

  it('are kept anew where a build was not whole', async () => {
    process.env['FAKE_BUILD_FAILS'] = '1';
    await expect(loadModel(tiny, withTensorRt())).rejects.toThrow('no kernel for this node');
    delete process.env['FAKE_BUILD_FAILS'];
    await (await loadModel(tiny, withTensorRt())).close();
    // The half of it that was left would be an error for ever.
    expect(log()).toEqual(['begun', 'begun', 'ended']);
  });

  it('are built by one process of those that want them', async () => {
    const loaders = Array.from({ length: 3 }, () => loader({ FAKE_BUILD_MS: '800' }));
    const codes = await Promise.all(loaders.map(async (child) => (await once(child, 'exit'))[0]));
    expect(codes).toEqual([0, 0, 0]);
    expect(log()).toEqual(['begun', 'ended']);
  });

  it('are built by the next process where one was killed over it', async () => {
    const child = loader({ FAKE_BUILD_MS: '60000' });
    await until(() => log().includes('begun'));
    const next = loadModel(tiny, withTensorRt());
    await sleep(300);
    expect(log()).toEqual(['begun']); // it waits
    child.kill('SIGKILL');
    await (await next).close();
    expect(log()).toEqual(['begun', 'begun', 'ended']);
  });

  it('are waited for no longer than the caller wants', async () => {
    loader({ FAKE_BUILD_MS: '60000' });
    await until(() => log().includes('begun'));
    const controller = new AbortController();
    const next = loadModel(tiny, { ...withTensorRt(), signal: controller.signal });
    await sleep(300);
    controller.abort(new Error('enough'));
    await expect(next).rejects.toThrow('enough');
  });

  it('say why their folder cannot be used', async () => {
    writeFileSync(path.join(scratch, 'file'), '');
    const engineCache = path.join(scratch, 'file', 'cache');
    await expect(loadModel(tiny, withTensorRt({ engineCache }))).rejects.toThrow(
      /the cache of TensorRT's engines cannot be used, ".*file\/cache": ENOTDIR/,
    );
  });

  describe('of a repository', () => {
    let events: RepositoryEvent[];
    let models: string;
    beforeEach(() => {
      events = [];
      models = path.join(scratch, 'models');
      mkdirSync(path.join(models, 'tiny', '1'), { recursive: true });
      copyFileSync(tiny, path.join(models, 'tiny', '1', 'model.onnx'));
      writeFileSync(path.join(models, 'tiny', 'model.json'), JSON.stringify(withTensorRt()));
    });
    const kinds = (): string[] => events.map(({ kind }) => kind);

    it('are built while the next provider serves, and swapped in without losing a request', async () => {
      process.env['FAKE_BUILD_MS'] = '1500';
      await using engine = createEngine();
      await engine.loadRepository(models, { onEvent: (event) => events.push(event) });
      expect(kinds()).toEqual(['loaded', 'building']);
      expect(modelOf(engine, 'tiny').providers).toEqual(['cpu']);
      const providers = new Set<string>();
      const end = Date.now() + PATIENCE_MS;
      for (let more = 50; more > 0 && Date.now() < end;) {
        const together = Array.from({ length: 8 }, () => engine.infer('tiny', { x }));
        for (const { y } of await Promise.all(together)) expect(y!.shape).toEqual([1, 4]);
        providers.add(modelOf(engine, 'tiny').providers[0]!);
        if (providers.size === 2) more--;
      }
      expect([...providers]).toEqual(['cpu', 'tensorrt']);
      expect(kinds()).toEqual(['loaded', 'building', 'loaded']);
      expect(log()).toEqual(['begun', 'ended']);
    });

    it('are there at the next start', async () => {
      for (const expected of [['loaded', 'building', 'loaded'], ['loaded']]) {
        events = [];
        await using engine = createEngine();
        await engine.loadRepository(models, { onEvent: (event) => events.push(event) });
        await until(() => events.length >= expected.length);
        expect(kinds()).toEqual(expected);
        expect(modelOf(engine, 'tiny').providers).toEqual(['tensorrt', 'cpu']);
      }
    });

    it('leave the model as it is served where they cannot be built', async () => {
      process.env['FAKE_BUILD_FAILS'] = '1';
      await using engine = createEngine();
      const repository = await engine.loadRepository(models, {
        onEvent: (event) => events.push(event),
      });
      await until(() => kinds().includes('failed'));
      expect((await repository.index())[0]).toMatchObject({
        state: 'READY',
        reason: expect.stringMatching(
          /^serving without TensorRT: .*no kernel for this node/,
        ) as string,
      });
      expect((await engine.infer('tiny', { x }))['y']!.shape).toEqual([1, 4]);
    });

    it('go on being built where a newer load fails', async () => {
      process.env['FAKE_BUILD_MS'] = '500';
      await using engine = createEngine();
      const repository = await engine.loadRepository(models, {
        onEvent: (event) => events.push(event),
      });
      await until(() => log().includes('begun'));
      expect((await repository.index())[0]).toMatchObject({
        state: 'READY',
        reason: 'serving without TensorRT while its engines are built',
      });
      await expect(repository.load('tiny', { config: '{"lanes": 0}' })).rejects.toThrow('lanes');
      await until(() => modelOf(engine, 'tiny').providers[0] === 'tensorrt');
      expect((await repository.index())[0]).toMatchObject({ state: 'READY', reason: '' });
    });

    it('are nobody’s where the engine was closed meanwhile', async () => {
      process.env['FAKE_BUILD_MS'] = '3000';
      const engine = createEngine();
      await engine.loadRepository(models, { onEvent: (event) => events.push(event) });
      await until(() => log().includes('begun'));
      await engine.close();
      expect(log()).not.toContain('ended'); // nobody waited for it
      await until(() => log().includes('ended'));
      await until(() => stats().models.length === 0);
    });

    it('are not swapped in where the model was unloaded meanwhile', async () => {
      process.env['FAKE_BUILD_MS'] = '500';
      await using engine = createEngine();
      const repository = await engine.loadRepository(models, {
        onEvent: (event) => events.push(event),
      });
      await until(() => log().includes('begun'));
      await repository.unload('tiny');
      await until(() => log().includes('ended'));
      await sleep(200);
      expect(engine.find('tiny')).toBeUndefined();
      expect(kinds()).toEqual(['loaded', 'building', 'unloaded']);
    });
  });
});
