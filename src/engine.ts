// The engine: the door to models by name and version.
import { Catalog } from './catalog/catalog.js';
import { emptyConfig } from './catalog/model-config.js';
import { ServableLoader, type Servable } from './catalog/model-servable.js';
import { InvalidInputError } from './errors.js';
import { native } from './native.js';
import { Repository, type RepositoryOptions } from './repository/repository.js';
import type { Inputs } from './runtime/model.js';
import type { RunOptions } from './runtime/run-options.js';
import { startRuntime, stats } from './runtime/runtime.js';
import { withDefaults } from './serving/defaults.js';
import type { Serving } from './serving/serving.js';
import type { Tensor } from './tensor.js';
import type { ModelOptions } from './types/model-options.js';
import type { EngineStats } from './types/stats.js';
import type { WarmUpSample } from './types/warm-up.js';

export interface EngineOptions {
  /** Compute threads of all models together; see RuntimeOptions. */
  computeThreads?: number;
  /** For every model that does not say otherwise. */
  defaults?: ModelOptions;
}

export interface EngineLoadOptions extends ModelOptions {
  /** Default '1'. */
  version?: string;
  /** Takes the place of the same version, which drains; without it a taken version is an error. */
  replace?: boolean;
  /** Runs before the version serves. Default: made up from the inputs; false: none. */
  warmUp?: readonly WarmUpSample[] | false;
}

export interface InferOptions extends RunOptions {
  /** A version or a label. Default: the newest. */
  version?: string;
}

/** Models by name and version. */
export class Engine implements Serving {
  /** What is served now. @internal */
  readonly catalog = new Catalog();
  readonly #loader: ServableLoader;
  #repository: Repository | undefined;

  /** @internal */
  constructor(options: EngineOptions = {}) {
    const { computeThreads, defaults = {}, ...rest } = options;
    const [unknown] = Object.keys(rest);
    if (unknown) {
      throw new InvalidInputError(
        `createEngine: option "${unknown}" does not exist; the options are computeThreads, defaults`,
      );
    }
    this.#loader = new ServableLoader(defaults);
    if (computeThreads !== undefined) {
      if (!Number.isSafeInteger(computeThreads) || computeThreads < 1) {
        throw new InvalidInputError(`computeThreads: expected 1 or more, got ${computeThreads}`);
      }
      startRuntime();
      native.setComputeThreads(computeThreads);
    }
  }

  /**
   * Loads a model under a name, and warms it: when this resolves, it is ready. By default it is measured
   * whether batches pay (`batching: 'auto'`).
   *
   * @throws as loadModel(); InvalidInputError when the name and version are taken
   */
  async load(
    name: string,
    source: string | Uint8Array,
    options: EngineLoadOptions = {},
  ): Promise<Servable> {
    const { version = '1', replace = false, warmUp, ...modelOptions } = options;
    this.catalog.check(name, version, replace);
    const config = emptyConfig();
    config.options = modelOptions;
    const servable = await this.#loader.load({ name, version, source, config, warmUp });
    return this.catalog.add(servable, replace);
  }

  /**
   * Stops serving a model, or one version of it. What is under way goes on to its end; the promise
   * resolves when it is over and the memory is back. False when there is no such model.
   */
  unload(name: string, version?: string): Promise<boolean> {
    return this.catalog.remove(name, version);
  }

  /**
   * Serves the models of a folder, `<name>/<version>/model.onnx`, and keeps to it as its control mode
   * says. Resolves when what is to be loaded at the start has been tried; see Repository.index().
   *
   * @throws ModelError when the folder cannot be read; with `strict`, the first model's failure
   */
  async loadRepository(folder: string, options: RepositoryOptions = {}): Promise<Repository> {
    this.catalog.checkOpen();
    if (this.#repository) throw new InvalidInputError('the engine has a repository already');
    this.#repository = new Repository(this.catalog, this.#loader, folder, options);
    try {
      await this.#repository.start();
    } catch (error) {
      await this.#repository.close();
      this.#repository = undefined;
      throw error;
    }
    return this.#repository;
  }

  /** What loadRepository() gave. */
  get repository(): Repository | undefined {
    return this.#repository;
  }

  /** Whether what is to be served at the start is there. */
  get ready(): boolean {
    return !this.catalog.closed && (this.#repository?.started ?? true);
  }

  /** Names, in the order they were loaded. */
  names(): string[] {
    return this.catalog.names();
  }

  /** Versions of a model that are ready, oldest first; none for an unknown name. */
  versions(name: string): string[] {
    return this.catalog.versions(name);
  }

  /** The model under a name, of the given version or label, or the newest. */
  find(name: string, version?: string): Servable | undefined {
    return this.catalog.find(name, version);
  }

  /**
   * Runs a model by name: requests that wait at the same time share runs, across all threads of the
   * process.
   *
   * @throws (rejects) as Model.run(); InvalidInputError for an unknown name
   */
  infer(name: string, inputs: Inputs, options?: InferOptions): Promise<Record<string, Tensor>> {
    const servable = this.catalog.find(name, options?.version);
    if (servable) return servable.model.run(inputs, withDefaults(servable.config, options));
    return Promise.reject(
      new InvalidInputError(
        `model "${name}"${options?.version ? ` version ${options.version}` : ''} does not exist`,
      ),
    );
  }

  stats(): EngineStats {
    return stats();
  }

  /** Closes every model; what is in flight rejects with ClosedError. */
  async close(): Promise<void> {
    await Promise.all([this.catalog.close(), this.#repository?.close()]);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/** An engine; see EngineOptions. `configure()` sets what the whole process shares. */
export function createEngine(options?: EngineOptions): Engine {
  return new Engine(options);
}
