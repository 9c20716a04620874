// TensorRT's engines, kept between starts of the process.
//
// Building an engine takes minutes, and TensorRT's provider looks at neither the weights nor other processes
// when it keeps one: the name of its file says the graph's shape, two builders write it at once, and what one
// left half written is an error for the next. So each model has a folder of its own, named by what an engine
// depends on, and one process of the machine builds at a time, which also leaves the GPU alone while kernels
// are timed.
//
//   <root>/<digest>/engine files, engine.json once they are whole, `building` before
//   <root>/timing/  timings of kernels, of all models
//   <root>/lock
import { createHash, type Hash } from 'node:crypto';
import { createReadStream, statSync } from 'node:fs';
import { mkdir, readdir, readFile, realpath, rename, rm, stat, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import path from 'node:path';
import { setImmediate, setTimeout as sleep } from 'node:timers/promises';
import { InvalidInputError, ModelError } from '../errors.js';
import { native } from '../native.js';
import type { ModelOptions } from '../types/model-options.js';
import type { ProviderSpec } from '../types/provider.js';
import { isTensorRt } from '../runtime/gpu-options.js';
import type { Model } from '../runtime/model.js';
import { startRuntime, stats } from '../runtime/runtime.js';

/** Changed when what is in a folder means something else. */
const FORMAT = 1;
const WHOLE = 'engine.json';
const BUILDING = 'building';
const LOOK_EVERY_MS = 200;
const HASHED_AT_ONCE = 8 << 20;

/** A load that may build an engine. */
export interface EngineBuild {
  /** With the cache's options for TensorRT's provider. */
  readonly options: ModelOptions;
  /** The model is loaded and warmed: what is in the folder is whole, if anything is. */
  done(model: Model): Promise<void>;
  /** Ends the turn of this process. */
  leave(): void;
}

function specs({ providers }: ModelOptions): ProviderSpec[] {
  // Whether they are right is said where they are loaded.
  const list: readonly unknown[] = Array.isArray(providers) ? providers : [];
  return list.map((one) =>
    typeof one === 'object' && one !== null
      ? { ...(one as ProviderSpec), name: String((one as ProviderSpec).name) }
      : { name: String(one) },
  );
}

function tensorRtOf(options: ModelOptions): ProviderSpec | undefined {
  return specs(options).find(({ name }) => isTensorRt(name));
}

function deviceOf(options: ModelOptions): number {
  return Number(tensorRtOf(options)?.options?.['device_id'] ?? options.gpu?.device ?? 0);
}

/** Whether TensorRT is among the providers, with a GPU for it, and its engines are kept. */
export function keepsEngines(options: ModelOptions): boolean {
  if (options.gpu?.engineCache === false) return false;
  const own = tensorRtOf(options)?.options ?? {};
  // Who names a folder by the provider's own options looks after it.
  if (!tensorRtOf(options) || 'trt_engine_cache_path' in own || 'trt_engine_cache_enable' in own) {
    return false;
  }
  startRuntime();
  try {
    native.gpu(deviceOf(options));
    return true;
  } catch {
    // The provider will say what is missing, or another takes its place.
    return false;
  }
}

/** The same model without TensorRT: what serves while an engine is built. */
export function withoutTensorRt(options: ModelOptions): ModelOptions {
  return { ...options, providers: specs(options).filter(({ name }) => !isTensorRt(name)) };
}

function rootOf(options: ModelOptions): string {
  const named = options.gpu?.engineCache;
  if (named) return path.resolve(named);
  const cache = process.env['XDG_CACHE_HOME'] || path.join(homedir(), '.cache');
  return path.join(cache, 'tercel', 'engines');
}

/** Between parts others have their turn. */
async function addTo(hash: Hash, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length; at += HASHED_AT_ONCE) {
    hash.update(bytes.subarray(at, at + HASHED_AT_ONCE));
    await setImmediate();
  }
}

/** Files that a model names as external data: the values of entries with the key `location`. */
function locations(model: Buffer): string[] {
  // StringStringEntryProto: key = 1, value = 2; a length of one or two bytes.
  const entry = Buffer.from('\x0a\x08location\x12', 'latin1');
  const found = new Set<string>();
  for (let at = model.indexOf(entry); at >= 0; at = model.indexOf(entry, at + 1)) {
    let begin = at + entry.length;
    let length = model[begin++] ?? 0;
    if (length >= 0x80) length = (length & 0x7f) | ((model[begin++] ?? 0) << 7);
    found.add(model.toString('utf8', begin, begin + length));
  }
  return [...found].sort();
}

/** Digests of files that were read, as long as they stay as they are. */
const known = new Map<string, { key: string; digest: string }>();

/** What a model is made of: its bytes, those of its external data, and the name that the provider sees. */
async function digestOf(source: string | Uint8Array, options: ModelOptions): Promise<string> {
  const hash = createHash('sha256');
  const given = options.externalData ?? {};
  for (const name of Object.keys(given).sort()) await addTo(hash.update(name), given[name]!);
  if (typeof source !== 'string') {
    await addTo(hash.update('bytes'), source);
    return hash.digest('hex');
  }
  try {
    // The library reads external data beside the file itself, not beside a link to it.
    const file = await realpath(source);
    const folder = path.dirname(file);
    const marks = async (name: string): Promise<string> => {
      // What is not there the library will say, or it is no file's name.
      const file = await stat(path.join(folder, name), { bigint: true }).catch(() => undefined);
      return file?.isFile()
        ? `${name}:${file.ino}:${file.size}:${file.mtimeNs}`
        : `${name}:missing`;
    };
    const model = await readFile(file);
    const beside = locations(model).filter((name) => !(name in given));
    const all = await Promise.all([path.basename(file), ...beside].map(marks));
    const key = JSON.stringify([Object.keys(given).length > 0 && hash.copy().digest('hex'), all]);
    const before = known.get(file);
    if (before?.key === key) return before.digest;
    await addTo(hash.update(path.basename(file)), model);
    for (const name of beside) {
      hash.update(name);
      if (all.includes(`${name}:missing`)) continue;
      for await (const chunk of createReadStream(path.join(folder, name))) {
        hash.update(chunk as Buffer);
      }
    }
    const digest = hash.digest('hex');
    known.set(file, { key, digest });
    return digest;
  } catch (cause) {
    throw new ModelError(`cannot load model "${source}": ${(cause as Error).message}`, { cause });
  }
}

/** What a plugin's library is. */
function libraryMark(library: string | undefined): string {
  if (library === undefined) return '';
  const file = statSync(library, { throwIfNoEntry: false });
  return `${path.resolve(library)}:${file?.size}:${file?.mtimeMs}`;
}

/** The folder of the engines of a model with these options on this machine. */
async function folderOf(source: string | Uint8Array, options: ModelOptions): Promise<string> {
  const { options: own = {}, library } = tensorRtOf(options)!;
  const sorted = (record: object): string[] =>
    Object.entries(record)
      .filter(([key]) => key !== 'device_id')
      .map(([key, value]) => `${key}=${String(value)}`)
      .sort();
  const facts = {
    format: FORMAT,
    model: await digestOf(source, options),
    onnxRuntime: stats().library?.version,
    gpu: native.gpu(deviceOf(options)),
    plugin: libraryMark(library),
    options: sorted(own),
    precision: options.gpu?.precision ?? 'fp32',
    dimensions: sorted(options.freeDimensions ?? {}),
    graphLevel: options.graphLevel ?? 'all',
    config: sorted(options.config ?? {}),
    // Which shapes it is warmed with.
    batching: options.batching ?? false,
  };
  const digest = createHash('sha256').update(JSON.stringify(facts)).digest('hex');
  return path.join(rootOf(options), digest.slice(0, 32));
}

async function isWhole(folder: string): Promise<boolean> {
  return (await stat(path.join(folder, WHOLE)).catch(() => undefined)) !== undefined;
}

function withCache(options: ModelOptions, folder: string): ModelOptions {
  const cache = {
    trt_engine_cache_enable: 1,
    trt_engine_cache_path: folder,
    trt_timing_cache_enable: 1,
    trt_timing_cache_path: path.join(path.dirname(folder), 'timing'),
  };
  const providers = specs(options).map((provider) =>
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
  return isWhole(await folderOf(source, options));
}

function warn(what: string, cause: unknown): void {
  process.emitWarning(`${what}: ${(cause as Error).message}`, 'TercelWarning');
}

/**
 * Begins a load with TensorRT: at once where its engines are there, else when it is this process's turn to
 * build, or another process has built them. Where the default folder cannot be used, a process warning says
 * so, and nothing is kept. REQUIRES: keepsEngines(options).
 *
 * @throws as hasEngines(); InvalidInputError when a folder that was named cannot be used; the signal's reason
 */
export async function enterBuild(
  source: string | Uint8Array,
  options: ModelOptions,
  signal?: AbortSignal,
): Promise<EngineBuild> {
  const begun = performance.now();
  let folder = '';
  let lock: object | undefined;
  const leave = (): void => {
    if (lock) native.unlock(lock);
    lock = undefined;
  };
  try {
    folder = await folderOf(source, options);
    const root = path.dirname(folder);
    // TensorRT's provider makes one level only.
    await mkdir(path.join(root, 'timing'), { recursive: true });
    await mkdir(folder, { recursive: true });
    while (!(await isWhole(folder))) {
      signal?.throwIfAborted();
      lock = native.tryLock(path.join(root, 'lock'));
      if (lock) break;
      await sleep(LOOK_EVERY_MS, undefined, { signal });
    }
    // Who had the turn before may have built it; or have been killed over it.
    if (lock && (await isWhole(folder))) leave();
    else if (lock) {
      const files = await readdir(folder);
      if (files.includes(BUILDING)) {
        for (const name of files) await rm(path.join(folder, name));
      }
      await writeFile(path.join(folder, BUILDING), '');
    }
  } catch (cause) {
    leave();
    signal?.throwIfAborted();
    if (cause instanceof ModelError) throw cause;
    const what = "the cache of TensorRT's engines cannot be used";
    if (options.gpu?.engineCache) {
      throw new InvalidInputError(
        `${what}, "${options.gpu.engineCache}": ${(cause as Error).message}`,
        { cause },
      );
    }
    warn(what, cause);
    return { options, done: () => Promise.resolve(), leave };
  }
  return {
    options: withCache(options, folder),
    async done(model) {
      if (!lock) return;
      try {
        await rm(path.join(folder, BUILDING));
        // TensorRT may have been passed over, or build when the first shapes come.
        const files = await readdir(folder);
        const isBuilt = files.some((file) => /\.engine$/.test(file));
        if (!isBuilt || !model.providers.some(isTensorRt)) return;
        const seconds = (performance.now() - begun) / 1000;
        const what = { seconds, ...native.gpu(deviceOf(options)) };
        const draft = path.join(folder, `${WHOLE}.${process.pid}`);
        await writeFile(draft, JSON.stringify(what, undefined, 2) + '\n');
        await rename(draft, path.join(folder, WHOLE));
      } catch (cause) {
        warn("TensorRT's engines are not kept", cause);
      } finally {
        leave();
      }
    },
    leave,
  };
}
