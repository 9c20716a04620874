// tercel/onnxruntime: onnxruntime-common's InferenceSession and Tensor, run by Tercel.
//
// Everything is onnxruntime-common's own code; only where it would pick a backend, it gets ours. The
// backend's priority is negative: other users of onnxruntime-common in the process never see it.
import * as common from 'onnxruntime-common';
import { loadModel } from './catalog/loader.js';
import type { Model } from './runtime/model.js';
import { stats } from './runtime/runtime.js';
import type { Tensor as TercelTensor } from './tensor.js';
import type { ModelOptions } from './types/model-options.js';
import type { ProviderSpec } from './types/provider.js';
import type { ValueMetadata } from './types/value.js';

export * from 'onnxruntime-common';

type SessionOptions = common.InferenceSession.SessionOptions;
type ValueType = common.InferenceSession.ValueMetadata;

const BACKEND = 'tercel';

/** Session config entries as onnxruntime-common nests them: {session: {a: {b: '1'}}} is session.a.b. */
function flattenConfig(extra: Record<string, unknown>, prefix = ''): Record<string, string> {
  const flat: Record<string, string> = {};
  for (const [key, value] of Object.entries(extra)) {
    const name = prefix + key;
    if (typeof value === 'object' && value !== null) {
      Object.assign(flat, flattenConfig(value as Record<string, unknown>, `${name}.`));
    } else {
      flat[name] = String(value);
    }
  }
  return flat;
}

const logLevels = ['verbose', 'info', 'warning', 'error', 'fatal'] as const;

function modelOptions(options: SessionOptions, providers: readonly unknown[]): ModelOptions {
  const level = options.graphOptimizationLevel;
  const mapped: ModelOptions = {
    // As there: 0 or nothing is as many threads as cores.
    threads: options.intraOpNumThreads ?? 0,
    interOpThreads: options.interOpNumThreads ?? 0,
    executionMode: options.executionMode ?? 'sequential',
    graphLevel: level === 'disabled' ? 'none' : (level ?? 'all'),
    memory: options.enableCpuMemArena === false ? 'malloc' : 'tercel',
    memoryPattern: options.enableMemPattern ?? true,
    // These are browsers' providers; on a server the CPU does their work.
    providers: providers.filter((p) => !['wasm', 'webgl'].includes(nameOf(p))).map(providerSpec),
    logLevel: logLevels[options.logSeverityLevel ?? 4] ?? 'fatal',
  };
  if (options.freeDimensionOverrides) mapped.freeDimensions = { ...options.freeDimensionOverrides };
  if (options.optimizedModelFilePath) mapped.optimizedModelPath = options.optimizedModelFilePath;
  if (options.enableProfiling)
    mapped.profilePrefix = options.profileFilePrefix ?? 'onnxruntime_profile_';
  if (options.extra) mapped.config = flattenConfig(options.extra);
  return mapped;
}

function nameOf(provider: unknown): string {
  return typeof provider === 'string' ? provider : (provider as { name: string }).name;
}

function providerSpec(provider: unknown): string | ProviderSpec {
  if (typeof provider === 'string') return provider;
  const { name, ...options } = provider as { name: string; deviceId?: number };
  const { deviceId, ...rest } = options;
  return {
    name,
    options: { ...rest, ...(deviceId !== undefined && { device_id: deviceId }) },
  };
}

function toTercel(tensor: common.Tensor): TercelTensor {
  return { dtype: tensor.type, shape: tensor.dims, data: tensor.data } as TercelTensor;
}

function fromTercel(name: string, value: unknown): common.Tensor {
  const tensor = value as TercelTensor | null;
  if (!tensor || Array.isArray(tensor) || tensor instanceof Map) {
    throw new Error(`output "${name}" is no tensor, which onnxruntime-common cannot hold`);
  }
  return new common.Tensor(tensor.dtype as 'float32', tensor.data as Float32Array, tensor.shape);
}

function metadata(values: readonly ValueMetadata[]): ValueType[] {
  return values.map(({ name, kind, dtype, shape }) =>
    kind === 'tensor'
      ? { name, isTensor: true, type: dtype as common.Tensor.Type, shape }
      : { name, isTensor: false },
  );
}

class Handler implements common.InferenceSessionHandler {
  readonly #model: Model;
  readonly inputNames: readonly string[];
  readonly outputNames: readonly string[];
  readonly inputMetadata: readonly ValueType[];
  readonly outputMetadata: readonly ValueType[];

  constructor(model: Model) {
    this.#model = model;
    this.inputNames = model.inputs.map((input) => input.name);
    this.outputNames = model.outputs.map((output) => output.name);
    this.inputMetadata = metadata(model.inputs);
    this.outputMetadata = metadata(model.outputs);
  }

  async run(
    feeds: common.SessionHandler.FeedsType,
    fetches: common.SessionHandler.FetchesType,
  ): Promise<common.SessionHandler.ReturnType> {
    const inputs = Object.fromEntries(
      Object.entries(feeds).map(([name, value]) => [name, toTercel(value)]),
    );
    const outputs = Object.fromEntries(
      Object.entries(fetches).map(([name, value]) => [name, value ? toTercel(value) : null]),
    );
    const values = await this.#model.run(inputs, { outputs });
    return Object.fromEntries(
      Object.entries(values).map(([name, value]) => [
        name,
        // A given tensor is written in place and comes back as itself.
        fetches[name] ?? fromTercel(name, value),
      ]),
    );
  }

  dispose(): Promise<void> {
    return this.#model.close();
  }

  startProfiling(): void {
    throw new Error('profiling starts with the session: set enableProfiling');
  }

  endProfiling(): void {
    throw new Error('the profile is written when the session is released');
  }
}

const backend: common.Backend = {
  async init(): Promise<void> {},
  async createInferenceSessionHandler(
    source,
    options = {},
  ): Promise<common.InferenceSessionHandler> {
    const ours = (options.executionProviders ?? []).find((p) => nameOf(p) === BACKEND) as
      { providers?: readonly unknown[] } | undefined;
    return new Handler(await loadModel(source, modelOptions(options, ours?.providers ?? [])));
  },
};

common.registerBackend(BACKEND, backend, -1);

/** Points session options at our backend, which passes the providers on. */
function redirect(argument: unknown): unknown {
  const options = argument as SessionOptions;
  return {
    ...options,
    executionProviders: [{ name: BACKEND, providers: options.executionProviders ?? [] }],
  };
}

function isOptions(argument: unknown): boolean {
  return (
    typeof argument === 'object' &&
    argument !== null &&
    !ArrayBuffer.isView(argument) &&
    !(argument instanceof ArrayBuffer) &&
    !(argument instanceof SharedArrayBuffer)
  );
}

type Create = (...args: unknown[]) => Promise<common.InferenceSession>;

/**
 * As onnxruntime-common's; sessions are Tercel models. Arguments, overloads and errors are its own.
 */
export const InferenceSession = new Proxy(common.InferenceSession, {
  get(target, property, receiver) {
    if (property !== 'create') return Reflect.get(target, property, receiver) as unknown;
    return (...args: unknown[]) => {
      const redirected = args.map((argument) =>
        isOptions(argument) ? redirect(argument) : argument,
      );
      if (!args.some(isOptions)) redirected.push(redirect({}));
      return (target.create as Create)(...redirected);
    };
  },
});
export type InferenceSession = common.InferenceSession;

/** Tercel's own counters, for programs that have only this entry. */
export { stats };
