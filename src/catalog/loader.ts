// loadModel: options checked and written out for the addon.
import { realpathSync, statSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { resolve as absolute } from 'node:path';
import { InvalidInputError, ModelError } from '../errors.js';
import { native, type NativeLoadOptions, type NativeModel } from '../native.js';
import type { ModelOptions } from '../types/model-options.js';
import { failOption, knownOptions } from '../options/validate.js';
import { enterBuild, keepsEngines } from './tensorrt-cache.js';
import { checkGpu, gpuLoadOptions, gpuProvider } from '../runtime/gpu-options.js';
import { task } from '../runtime/mailbox.js';
import { Model } from '../runtime/model.js';
import { checkBatching, defaultLanes } from '../runtime/scheduling.js';
import { logLevelCode, startRuntime } from '../runtime/runtime.js';
import { warm } from './warm-up.js';

const graphLevels = { none: 0, basic: 1, extended: 2, layout: 3, all: 99 } as const;

type Check = (value: unknown) => boolean;
const isFlag: Check = (value) => typeof value === 'boolean';
const isText: Check = (value) => typeof value === 'string';
const isList: Check = Array.isArray;
const isRecord: Check = (value) =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
const wholeFrom =
  (least: number): Check =>
  (value) =>
    Number.isSafeInteger(value) && (value as number) >= least && (value as number) <= 0x7fffffff;
const oneOf =
  (...values: string[]): Check =>
  (value) =>
    values.includes(value as string);

/** What each option must be, and how to say it. */
const rules: Record<keyof ModelOptions, [Check, string]> = {
  threads: [wholeFrom(0), 'a whole number; 0 is as many as cores'],
  interOpThreads: [wholeFrom(0), 'a whole number; 0 is as many as cores'],
  executionMode: [oneOf('sequential', 'parallel'), "'sequential' or 'parallel'"],
  spinning: [isFlag, 'true or false'],
  graphLevel: [oneOf(...Object.keys(graphLevels)), `one of ${Object.keys(graphLevels).join(', ')}`],
  affinity: [isText, "a string such as '1,2;3'"],
  memory: [oneOf('tercel', 'ort', 'malloc'), "'tercel', 'ort' or 'malloc'"],
  memoryPattern: [isFlag, 'true or false'],
  deterministic: [isFlag, 'true or false'],
  freeDimensions: [
    (value) => isRecord(value) && Object.values(value as object).every(wholeFrom(1)),
    'whole numbers of 1 or more by name',
  ],
  config: [
    (value) => isRecord(value) && Object.values(value as object).every(isText),
    'strings by key',
  ],
  providers: [isList, 'an array of names or {name, options}'],
  // checkGpu() says more.
  gpu: [isRecord, 'an object'],
  fallback: [isFlag, 'true or false'],
  lanes: [wholeFrom(1), 'a whole number of 1 or more'],
  maxQueue: [wholeFrom(1), 'a whole number of 1 or more'],
  weight: [(value) => typeof value === 'number' && value > 0, 'a number above 0'],
  // checkBatching() says more.
  batching: [(value) => value === false || value === 'auto' || isRecord(value), 'an object'],
  throttle: [isFlag, 'true or false'],
  inline: [oneOf('auto', 'always', 'never'), "'auto', 'always' or 'never'"],
  externalData: [
    (value) =>
      isRecord(value) && Object.values(value as object).every((v) => v instanceof Uint8Array),
    'Uint8Arrays by file name',
  ],
  customOpLibraries: [(value) => Array.isArray(value) && value.every(isText), 'an array of paths'],
  optimizedModelPath: [isText, 'a path'],
  profilePrefix: [isText, 'a path prefix'],
  logLevel: [isText, 'a log level'],
  signal: [(value) => value instanceof AbortSignal, 'an AbortSignal'],
};

function check(options: ModelOptions): void {
  knownOptions('', options, Object.keys(rules));
  for (const [name, value] of Object.entries(options)) {
    const [holds, expected] = rules[name as keyof ModelOptions];
    if (value !== undefined && !holds(value)) failOption(name, expected, value);
  }
}

function show(value: unknown): string {
  return JSON.stringify(value) ?? typeof value;
}

function flat(record: Record<string, string | number | boolean> | undefined): string[] {
  return Object.entries(record ?? {}).flatMap(([key, value]) => [key, String(value)]);
}

function providerOf(spec: unknown): NativeLoadOptions['providers'][number] {
  const {
    name,
    options,
    library,
    device = 0,
  } = (typeof spec === 'string' ? { name: spec } : (spec ?? {})) as {
    name?: unknown;
    options?: Record<string, string>;
    library?: unknown;
    device?: unknown;
  };
  if (typeof name !== 'string' || name === '') {
    failOption('providers', 'a name or {name, options}', spec);
  }
  for (const [key, value] of Object.entries(options ?? {})) {
    if (!['string', 'number', 'boolean'].includes(typeof value)) {
      throw new InvalidInputError(
        `option "providers": ${name}.${key} must be a string, number or boolean`,
      );
    }
  }
  if (library !== undefined && (typeof library !== 'string' || library === '')) {
    throw new InvalidInputError(
      `option "providers": ${name}.library: expected a path, got ${show(library)}`,
    );
  }
  if (!wholeFrom(0)(device)) {
    throw new InvalidInputError(
      `option "providers": ${name}.device: expected a whole number of 0 or more, got ${show(device)}`,
    );
  }
  return {
    name,
    options: flat(options),
    library: library === undefined ? '' : absolute(library),
    device: device as number,
  };
}

/** The options as the addon takes them, with the defaults. @internal */
export function nativeOptions(options: ModelOptions): Omit<NativeLoadOptions, 'key'> {
  const cores = availableParallelism();
  const threads = options.threads ?? 1;
  const providers = (options.providers ?? []).map(providerOf);
  const names = providers.map(({ name }) => name);
  return {
    intraOpThreads: threads,
    computeThreads: threads || cores,
    interOpThreads: options.interOpThreads ?? 1,
    parallel: options.executionMode === 'parallel',
    spinning: options.spinning ?? false,
    graphLevel: graphLevels[options.graphLevel ?? 'all'],
    deterministic: options.deterministic ?? false,
    memoryPattern: options.memoryPattern ?? true,
    memory: options.memory ?? 'tercel',
    affinity: options.affinity ?? '',
    freeDimensions: flat(options.freeDimensions),
    config: flat(options.config),
    providers: providers.map((provider) => gpuProvider(provider, options.gpu ?? {}, names)),
    fallback: options.fallback ?? false,
    optimizedModelPath: options.optimizedModelPath ?? '',
    profilePrefix: options.profilePrefix ?? '',
    customOpLibraries: options.customOpLibraries ?? [],
    logLevel: logLevelCode(options.logLevel),
    lanes: options.lanes ?? defaultLanes(threads || cores, false),
    ...gpuLoadOptions(options),
    maxQueue: options.maxQueue ?? 1024,
    inline: options.inline ?? 'auto',
    throttle: options.throttle ?? false,
  };
}

/** The file as it is now: a file that was replaced is another model. */
function identify(path: string): { path: string; identity: string } {
  try {
    const real = realpathSync(path);
    const file = statSync(real, { bigint: true });
    return { path: real, identity: `${real}:${file.dev}:${file.ino}:${file.size}:${file.mtimeNs}` };
  } catch (cause) {
    throw new ModelError(`cannot load model "${path}": ${(cause as Error).message}`, { cause });
  }
}

/**
 * Loads an ONNX model on a thread of its own. The same path with the same options is one session in
 * the process, whichever JS threads load it; it goes when the last of them closes it.
 *
 * @param source path of an .onnx or .ort file (external data is read beside it), or the file's bytes,
 *   which are copied
 * @throws ModelError when the file, a provider or the library cannot be loaded; InvalidInputError for a
 *   wrong option; the signal's reason when it aborts
 */
export async function loadModel(
  source: string | Uint8Array,
  options: ModelOptions = {},
): Promise<Model> {
  checkLoad(source, options);
  if (!keepsEngines(options)) return loadShared(source, options);
  const build = await enterBuild(source, options, options.signal);
  try {
    const model = await loadShared(source, build.options);
    await build.done(model);
    return model;
  } finally {
    build.leave();
  }
}

/** @throws InvalidInputError for a wrong option; the signal's reason */
function checkLoad(source: unknown, options: ModelOptions): void {
  if (typeof source !== 'string' && !(source instanceof Uint8Array)) {
    throw new InvalidInputError(`loadModel: expected a path or a Uint8Array, got ${typeof source}`);
  }
  check(options);
  checkBatching(options.batching);
  checkGpu(options.gpu);
  options.signal?.throwIfAborted();
}

/**
 * As loadModel(), without a look at what TensorRT keeps.
 *
 * @internal
 * @param policyOf whose policy the session has: others do not share it
 */
export async function loadShared(
  source: string | Uint8Array,
  options: ModelOptions,
  policyOf?: string,
): Promise<Model> {
  checkLoad(source, options);
  const fromPath = typeof source === 'string';
  startRuntime();
  const written = nativeOptions(options);
  const external = options.externalData;
  let file: { path: string; bytes?: undefined } | { path?: undefined; bytes: Uint8Array };
  let key = '';
  if (fromPath) {
    const { path, identity } = identify(source);
    file = { path };
    // Sharing covers what stays the same: not bytes given in the call, not files written on the way.
    if (!external && !written.optimizedModelPath && !written.profilePrefix) {
      const { inline: _inline, throttle: _throttle, ...shared } = written;
      // One session has one policy.
      const { weight, batching, gpu } = options;
      key = identity + JSON.stringify([shared, weight, batching, gpu, policyOf]);
    }
  } else {
    file = { bytes: source };
  }
  const model = await task(
    (slot) =>
      native.load(
        slot,
        {
          ...file,
          ...(external && {
            externalNames: Object.keys(external),
            externalBytes: Object.values(external),
          }),
        },
        { ...written, key },
      ),
    (result) => new Model(result as NativeModel),
    options.signal,
  );
  try {
    const decided =
      options.batching === 'auto' || (options.batching && options.batching.maxBatch === undefined)
        ? await warm(model, {
            batching: options.batching,
            warmUp: false,
            throttle: written.throttle,
            threads: options.threads,
            lanes: options.lanes,
            gpu: options.gpu,
          })
        : { batching: options.batching };
    // The engine configures what it loads, once it is warmed.
    const isOurs = policyOf === undefined;
    const isSet = options.weight !== undefined || (model.onGpu && options.gpu?.graphs);
    if (isOurs && (decided.batching || isSet)) {
      model.configure({ ...options, ...decided });
    }
  } catch (error) {
    await model.close();
    throw error;
  }
  for (const warning of model.warnings) process.emitWarning(warning, 'TercelWarning');
  return model;
}
