// A model under a name and a version: loaded, held against its configuration, and warmed.
import type { Model } from '../runtime/model.js';
import type { ModelOptions } from '../types/model-options.js';
import type { WarmUpSample } from '../types/warm-up.js';
import { checkDeclared } from './declared.js';
import { loadShared } from './loader.js';
import type { ModelConfig } from './model-config.js';
import { enterBuild, keepsEngines } from './tensorrt-cache.js';
import { warm } from './warm-up.js';

/** A model under a name and a version, loaded and warmed. */
export interface Servable {
  readonly name: string;
  /** A positive whole number as text, as in the repository's folder names. */
  readonly version: string;
  readonly model: Model;
  readonly config: ModelConfig;
  /** When it began to serve, in milliseconds since 1970. */
  readonly since: number;
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
  async load(from: ServableSource, options = this.options(from.config)): Promise<Servable> {
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
  ): Promise<Servable> {
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
      return { name, version, model, config, since: Date.now() };
    } catch (error) {
      await model.close();
      throw error;
    }
  }
}
