// What a model is loaded with: options checked, and written out for the addon.
import { availableParallelism } from 'node:os';
import { resolve as absolute } from 'node:path';
import { InvalidInputError } from '../errors.js';
import type { NativeLoadOptions } from '../native.js';
import { failOption, knownOptions } from '../options/validate.js';
import type { ModelOptions } from '../types/model-options.js';
import { checkGpu, gpuLoadOptions, gpuProvider } from './gpu-options.js';
import { logLevelCode } from './runtime.js';
import { checkBatching, defaultLanes } from './scheduling.js';

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

/** @throws InvalidInputError naming the option, and what it must be */
export function checkModelOptions(options: ModelOptions): void {
  knownOptions('', options, Object.keys(rules));
  for (const [name, value] of Object.entries(options)) {
    const [holds, expected] = rules[name as keyof ModelOptions];
    if (value !== undefined && !holds(value)) failOption(name, expected, value);
  }
  checkBatching(options.batching);
  checkGpu(options.gpu);
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
