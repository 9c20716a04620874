// A model under a name and a version: loaded, held against its configuration, and warmed.
import type { Model } from '../runtime/model.js';
import type { Selection } from '../runtime/selection.js';
import type { ModelOptions } from '../types/model-options.js';
import type {
  Call,
  Inputs,
  OutputSelection,
  Reply,
  Running,
  Servable,
  ServableAbout,
  ServableStats,
} from '../types/servable.js';
import type { ValueMetadata } from '../types/value.js';
import type { WarmUpSample } from '../types/warm-up.js';
import { checkDeclared } from './declared.js';
import { loadShared } from './loader.js';
import type { ModelConfig } from './model-config.js';
import { enterBuild, keepsEngines } from './tensorrt-cache.js';
import { warm } from './warm-up.js';

/** A model under a name and a version, loaded and warmed. */
export class ModelServable implements Servable {
  readonly name: string;
  readonly version: string;
  readonly model: Model;
  readonly config: ModelConfig;
  /** When it began to serve, in milliseconds since 1970. */
  readonly since = Date.now();
  readonly inputs: readonly ValueMetadata[];
  readonly outputs: readonly ValueMetadata[];
  readonly about: ServableAbout;
  readonly accepts = 'raw';
  readonly drains = true;

  /** @internal */
  constructor(name: string, version: string, model: Model, config: ModelConfig) {
    this.name = name;
    this.version = version;
    this.model = model;
    this.config = config;
    this.inputs = model.inputs;
    this.outputs = model.outputs;
    this.about = aboutModel(model, config);
  }

  /** Throws InvalidInputError for an output that the model has not. */
  prepare(outputs: OutputSelection | undefined): Selection {
    return this.model.select(outputs);
  }

  start(prepared: unknown, inputs: Inputs, call: Call, reply: Reply): Running | undefined {
    return this.model.start(inputs, prepared as Selection, call, reply);
  }

  stats(): ServableStats {
    const stats = this.model.stats();
    const { runUs, queueUs, inlineUs, rows, executions, lastMs, batches } = stats;
    const good = stats.runs - stats.failed - stats.invalid;
    return {
      inferences: rows,
      executions,
      lastMs,
      success: { count: good, us: queueUs + runUs + inlineUs },
      fail: {
        count: stats.failed + stats.expired + stats.cancelled + stats.refused,
        us: stats.failedUs,
      },
      queue: { count: good, us: queueUs },
      infer: { count: good, us: runUs + inlineUs },
      batches,
    };
  }

  close(options?: { drain?: boolean }): Promise<void> {
    return this.model.close(options);
  }
}

function aboutModel(model: Model, config: ModelConfig): ServableAbout {
  return {
    platform: 'onnxruntime_onnx',
    backend: 'onnxruntime',
    // What the configuration promises, or as the scheduler has it now.
    get maxBatchSize() {
      const { maxBatch } = model.stats().batching;
      return config.maxBatchSize || (maxBatch > 1 ? maxBatch : 0);
    },
    get batching() {
      return model.stats().batching;
    },
    get instances() {
      const { lanes, device } = model.stats();
      return { count: Math.max(1, lanes), ...(device !== undefined && { gpus: [device] }) };
    },
    file: config.file,
    versions: config.versions,
    labels: config.labels,
    classNames: config.classNames,
    defaults: {
      timeoutMs: config.timeoutMs,
      priority: config.priority,
      timeoutOverride: config.timeoutOverride,
    },
  };
}

/** What a servable is to be made of. */
export interface ServableSource {
  readonly name: string;
  readonly version: string;
  /** A path, or a model's bytes. */
  readonly source: string | Uint8Array;
  readonly config: ModelConfig;
  /** Default: made up from the inputs; false: none. */
  readonly warmUp?: readonly WarmUpSample[] | false | undefined;
  /** Loads with another number share no session. Default 0. */
  readonly generation?: number;
}

/** Makes servables with an engine's defaults. */
export class ServableLoader {
  readonly #defaults: ModelOptions;

  constructor(defaults: ModelOptions) {
    this.#defaults = defaults;
  }

  /** What a model of this configuration is loaded with. */
  options(config: ModelConfig): ModelOptions {
    return { batching: 'auto', ...this.#defaults, ...config.options };
  }

  /**
   * Loads and warms a version without serving it yet.
   *
   * @param options other than the configuration says
   * @throws (rejects) as loadModel(); ModelError where the model is not what its configuration declares
   */
  async load(from: ServableSource, options = this.options(from.config)): Promise<ModelServable> {
    if (!keepsEngines(options)) return this.#load(from, options);
    const build = await enterBuild(from.source, options, options.signal);
    try {
      const servable = await this.#load(from, build.options);
      await build.done(servable.model);
      return servable;
    } finally {
      build.leave();
    }
  }

  async #load(
    { name, version, source, config, warmUp, generation = 0 }: ServableSource,
    { batching, ...options }: ModelOptions,
  ): Promise<ModelServable> {
    // One session has one policy; the same load on another thread of the process shares both.
    const policy = JSON.stringify([name, version, batching, generation]);
    const model = await loadShared(source, options, policy);
    try {
      checkDeclared(config, model);
      const decided = await warm(model, {
        batching,
        ...(warmUp !== undefined && { warmUp }),
        throttle: options.throttle,
        threads: options.threads,
        lanes: options.lanes,
        gpu: options.gpu,
        configure: (early) => model.configure({ ...options, ...early }),
      });
      model.configure({ ...options, ...decided });
      return new ModelServable(name, version, model, config);
    } catch (error) {
      await model.close();
      throw error;
    }
  }
}
