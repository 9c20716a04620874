// TensorRT's engines, kept between starts of the process.
//
// Building an engine takes minutes, and TensorRT's provider looks at neither the weights nor other processes
// when it keeps one: the name of its file says the graph's shape, and two builders write it at once. So each
// model has a folder of its own, named by what an engine depends on, and one process of the machine builds
// at a time, which also leaves the GPU alone while kernels are timed.
//
//   <root>/<digest>/engine files, engine.json once they are whole
//   <root>/timing/  timings of kernels, of all models
//   <root>/lock
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { mkdir, readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { InvalidInputError, ModelError } from '../errors.js';
import { native } from '../native.js';
import type { ModelOptions, ProviderSpec } from '../types.js';
import { isTensorRt } from './gpu.js';
import { startRuntime, stats } from './runtime.js';

/** Changed when what is in a folder means something else. */
const FORMAT = 1;
const WHOLE = 'engine.json';
const LOOK_EVERY_MS = 200;

/** A load that may build an engine. */
export interface EngineBuild {
  /** With the cache's options for TensorRT's provider. */
  readonly options: ModelOptions;
  /** Its folder. */
  readonly folder: string;
  /** Whether the engines are there, so that the load is quick. */
  readonly built: boolean;
  /** The model is loaded and warmed: what is in the folder is whole. */
  done(): Promise<void>;
  /** It is not. Either ends the turn of this process. */
  abandon(): void;
}

function spec(provider: string | ProviderSpec): ProviderSpec {
  return typeof provider === 'string' ? { name: provider } : provider;
}

/** Whether TensorRT is among the providers, with a GPU for it, and its engines are kept. */
export function keepsEngines(options: ModelOptions): boolean {
  const { providers = [], gpu } = options;
  if (gpu?.engineCache === false) return false;
  const tensorRt = providers.map(spec).find(({ name }) => isTensorRt(name));
  // Who names a folder by the provider's own option looks after it.
  if (!tensorRt || tensorRt.options?.['trt_engine_cache_path'] !== undefined) return false;
  startRuntime();
  try {
    native.gpu(gpu?.device ?? 0);
    return true;
  } catch {
    // The provider will say what is missing, or another takes its place.
    return false;
  }
}

/** The same model without TensorRT: what serves while an engine is built. */
export function withoutTensorRt(options: ModelOptions): ModelOptions {
  const { providers = [] } = options;
  return { ...options, providers: providers.filter((one) => !isTensorRt(spec(one).name)) };
}

function defaultRoot(): string {
  const cache = process.env['XDG_CACHE_HOME'] || path.join(homedir(), '.cache');
  return path.join(cache, 'tercel', 'engines');
}

/** The model's bytes, and those of the files beside it that it names. */
async function digestOf(source: string | Uint8Array, options: ModelOptions): Promise<string> {
  const hash = createHash('sha256');
  if (typeof source !== 'string') {
    hash.update(source);
    for (const [name, bytes] of Object.entries(options.externalData ?? {})) {
      hash.update(name).update(bytes);
    }
    return hash.digest('hex');
  }
  const model = await readFile(source).catch((cause: unknown) => {
    throw new ModelError(`cannot load model "${source}": ${(cause as Error).message}`, { cause });
  });
  hash.update(model);
  const folder = path.dirname(source);
  for (const name of (await readdir(folder)).sort()) {
    const file = path.join(folder, name);
    if (name === path.basename(source) || !model.includes(name)) continue;
    if (!(await stat(file)).isFile()) continue;
    hash.update(name);
    for await (const chunk of createReadStream(file)) hash.update(chunk as Buffer);
  }
  return hash.digest('hex');
}

/** The folder of the engines of a model with these options on this machine. */
async function folderOf(
  root: string,
  source: string | Uint8Array,
  options: ModelOptions,
): Promise<string> {
  const { device = 0 } = options.gpu ?? {};
  const { engineCache: _where, slots: _slots, graphs: _graphs, ...gpu } = options.gpu ?? {};
  const facts = {
    format: FORMAT,
    model: await digestOf(source, options),
    onnxRuntime: stats().library?.version,
    gpu: native.gpu(device),
    options: [options.providers, gpu, options.freeDimensions, options.graphLevel, options.config],
  };
  const digest = createHash('sha256').update(JSON.stringify(facts)).digest('hex');
  return path.join(root, digest.slice(0, 32));
}

async function isWhole(folder: string): Promise<boolean> {
  return (await stat(path.join(folder, WHOLE)).catch(() => undefined)) !== undefined;
}

function withCache(options: ModelOptions, folder: string, root: string): ModelOptions {
  const cache = {
    trt_engine_cache_enable: 1,
    trt_engine_cache_path: folder,
    trt_timing_cache_enable: 1,
    trt_timing_cache_path: path.join(root, 'timing'),
  };
  const providers = (options.providers ?? [])
    .map(spec)
    .map((provider) =>
      isTensorRt(provider.name)
        ? { ...provider, options: { ...cache, ...provider.options } }
        : provider,
    );
  return { ...options, providers };
}

/**
 * Whether the engines of a model are there. REQUIRES: keepsEngines(options).
 *
 * @throws ModelError when the model cannot be read
 */
export async function hasEngines(
  source: string | Uint8Array,
  options: ModelOptions,
): Promise<boolean> {
  return isWhole(await folderOf(options.gpu?.engineCache || defaultRoot(), source, options));
}

/**
 * Begins a load with TensorRT: at once where its engines are there, else when it is this process's turn to
 * build, or another process has built them. REQUIRES: keepsEngines(options).
 *
 * @throws as hasEngines(); InvalidInputError when the folder cannot be made; the signal's reason
 */
export async function enterBuild(
  source: string | Uint8Array,
  options: ModelOptions,
  signal?: AbortSignal,
): Promise<EngineBuild> {
  const root = path.resolve(options.gpu?.engineCache || defaultRoot());
  const folder = await folderOf(root, source, options);
  const begun = performance.now();
  let lock: object | undefined;
  try {
    // TensorRT's provider makes one level only.
    await mkdir(folder, { recursive: true });
    await mkdir(path.join(root, 'timing'), { recursive: true });
    while (!(await isWhole(folder))) {
      signal?.throwIfAborted();
      lock = native.tryLock(path.join(root, 'lock'));
      if (lock) break;
      await sleep(LOOK_EVERY_MS, undefined, { signal });
    }
  } catch (cause) {
    signal?.throwIfAborted();
    throw new InvalidInputError(
      `the cache of TensorRT's engines, "${root}", cannot be used: ${(cause as Error).message}`,
      { cause },
    );
  }
  const leave = (): void => {
    if (lock) native.unlock(lock);
    lock = undefined;
  };
  // Who had the turn before may have built it.
  const built = await isWhole(folder);
  if (built) leave();
  return {
    options: withCache(options, folder, root),
    folder,
    built,
    async done() {
      if (built) return;
      const seconds = (performance.now() - begun) / 1000;
      const what = { seconds, ...native.gpu(options.gpu?.device ?? 0) };
      try {
        await writeFile(path.join(folder, WHOLE), JSON.stringify(what, undefined, 2) + '\n');
      } finally {
        leave();
      }
    },
    abandon: leave,
  };
}
