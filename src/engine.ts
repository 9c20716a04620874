// The engine: models by name and version.
import { ClosedError, InvalidInputError } from './errors.js';
import { native } from './native.js';
import type { Tensor } from './tensor.js';
import type { EngineStats } from './types/stats.js';
import type { ModelOptions } from './types/model-options.js';
import type { WarmUpSample } from './types/warm-up.js';
import { checkDeclared } from './catalog/declared.js';
import { emptyConfig, type ModelConfig } from './catalog/model-config.js';
import { enterBuild, keepsEngines } from './catalog/tensorrt-cache.js';
import { loadShared } from './catalog/loader.js';
import type { Inputs, Model } from './runtime/model.js';
import { Repository, type RepositoryOptions } from './repository/repository.js';
import type { RunOptions } from './runtime/run-options.js';
import { startRuntime, stats } from './runtime/runtime.js';
import { warm } from './catalog/warm-up.js';

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

interface Entry {
  readonly versions: Map<string, Servable>;
  /** The newest, for requests that do not say. */
  current: Servable | undefined;
}

const VERSION = /^[1-9][0-9]*$/;

/** Models by name and version. */
export class Engine {
  readonly #entries = new Map<string, Entry>();
  readonly #defaults: ModelOptions;
  /** Old versions on their way out. */
  readonly #leaving = new Set<Servable>();
  readonly #draining = new Set<Promise<void>>();
  #repository: Repository | undefined;
  #closed = false;

  /** @internal */
  constructor(options: EngineOptions = {}) {
    const { computeThreads, defaults = {}, ...rest } = options;
    const [unknown] = Object.keys(rest);
    if (unknown) {
      throw new InvalidInputError(
        `createEngine: option "${unknown}" does not exist; the options are computeThreads, defaults`,
      );
    }
    this.#defaults = defaults;
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
    this.#check(name, version, replace);
    const config = emptyConfig();
    config.options = modelOptions;
    return this.add(await this.prepare(name, version, source, config, warmUp), replace);
  }

  #check(name: string, version: string, replace: boolean): void {
    if (this.#closed) throw new ClosedError('the engine was closed');
    if (typeof name !== 'string' || name === '') {
      throw new InvalidInputError(`name: expected a text, got ${JSON.stringify(name)}`);
    }
    if (!VERSION.test(version)) {
      throw new InvalidInputError(`version: expected a positive whole number, got "${version}"`);
    }
    if (!replace && this.#entries.get(name)?.versions.has(version)) {
      throw new InvalidInputError(`model "${name}" version ${version} is loaded already`);
    }
  }

  /**
   * Loads and warms a version without serving it yet.
   *
   * @internal
   */
  async prepare(
    name: string,
    version: string,
    source: string | Uint8Array,
    config: ModelConfig,
    warmUp?: readonly WarmUpSample[] | false,
    generation = 0,
    /** Other than the configuration says. */
    options?: ModelOptions,
  ): Promise<Servable> {
    const how = options ?? this.options(config);
    if (!keepsEngines(how)) {
      return this.#prepare(name, version, source, config, how, warmUp, generation);
    }
    const build = await enterBuild(source, how, how.signal);
    try {
      const servable = await this.#prepare(
        name,
        version,
        source,
        config,
        build.options,
        warmUp,
        generation,
      );
      await build.done(servable.model);
      return servable;
    } finally {
      build.leave();
    }
  }

  /** What a model of this configuration is loaded with. @internal */
  options(config: ModelConfig): ModelOptions {
    return { batching: 'auto', ...this.#defaults, ...config.options };
  }

  async #prepare(
    name: string,
    version: string,
    source: string | Uint8Array,
    config: ModelConfig,
    { batching, ...options }: ModelOptions,
    warmUp: readonly WarmUpSample[] | false | undefined,
    generation: number,
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

  /**
   * Serves a prepared version, in place of the same one if that is there: requests that come from now on
   * get it, those that are under way end on the old one.
   *
   * @internal
   */
  add(servable: Servable, replace = true): Servable {
    const { name, version } = servable;
    try {
      this.#check(name, version, replace);
    } catch (error) {
      void servable.model.close();
      throw error;
    }
    let entry = this.#entries.get(name);
    if (!entry) this.#entries.set(name, (entry = { versions: new Map(), current: undefined }));
    const old = entry.versions.get(version);
    entry.versions.set(version, servable);
    this.#choose(entry);
    if (old) void this.#drain(old);
    return servable;
  }

  #choose(entry: Entry): void {
    const newest = [...entry.versions.keys()].sort((a, b) => Number(b) - Number(a))[0];
    entry.current = newest === undefined ? undefined : entry.versions.get(newest);
  }

  #drain(servable: Servable): Promise<void> {
    this.#leaving.add(servable);
    return this.#track(
      servable.model.close({ drain: true }).finally(() => this.#leaving.delete(servable)),
    );
  }

  #track(closed: Promise<void>): Promise<void> {
    this.#draining.add(closed);
    return closed.finally(() => this.#draining.delete(closed));
  }

  /**
   * Stops serving a model, or one version of it. What is under way goes on to its end; the promise
   * resolves when it is over and the memory is back. False when there is no such model.
   */
  async unload(name: string, version?: string): Promise<boolean> {
    const entry = this.#entries.get(name);
    const leaving = [...(entry?.versions.values() ?? [])].filter(
      (servable) => version === undefined || servable.version === version,
    );
    if (!entry || leaving.length === 0) return false;
    for (const servable of leaving) entry.versions.delete(servable.version);
    if (entry.versions.size === 0) this.#entries.delete(name);
    else this.#choose(entry);
    await Promise.all(leaving.map((servable) => this.#drain(servable)));
    return true;
  }

  /**
   * Serves the models of a folder, `<name>/<version>/model.onnx`, and keeps to it as its control mode
   * says. Resolves when what is to be loaded at the start has been tried; see Repository.index().
   *
   * @throws ModelError when the folder cannot be read; with `strict`, the first model's failure
   */
  async loadRepository(folder: string, options: RepositoryOptions = {}): Promise<Repository> {
    if (this.#closed) throw new ClosedError('the engine was closed');
    if (this.#repository) throw new InvalidInputError('the engine has a repository already');
    this.#repository = new Repository(this, folder, options);
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
    return !this.#closed && (this.#repository?.started ?? true);
  }

  /** Names, in the order they were loaded. */
  names(): string[] {
    return [...this.#entries.keys()];
  }

  /** Versions of a model that are ready, oldest first; none for an unknown name. */
  versions(name: string): string[] {
    const versions = this.#entries.get(name)?.versions.keys() ?? [];
    return [...versions].sort((a, b) => Number(a) - Number(b));
  }

  /** The model under a name, of the given version or label, or the newest. */
  find(name: string, version?: string): Servable | undefined {
    const entry = this.#entries.get(name);
    if (!entry || version === undefined) return entry?.current;
    return entry.versions.get(version) ?? this.#labelled(entry, version);
  }

  #labelled(entry: Entry, label: string): Servable | undefined {
    const version = entry.current?.config.labels[label];
    return version === undefined ? undefined : entry.versions.get(String(version));
  }

  /**
   * Runs a model by name: requests that wait at the same time share runs, across all threads of the
   * process.
   *
   * @throws (rejects) as Model.run(); InvalidInputError for an unknown name
   */
  infer(name: string, inputs: Inputs, options?: InferOptions): Promise<Record<string, Tensor>> {
    const servable = this.find(name, options?.version);
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
    this.#closed = true;
    const servables = [...this.#entries.values()].flatMap(({ versions }) => [...versions.values()]);
    this.#entries.clear();
    // What drains is ended too: it may wait for ever.
    const all = [...servables, ...this.#leaving].map(({ model }) => model.close());
    await Promise.all([...all, ...this.#draining, this.#repository?.close()]);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/** A request's options, with what the model's configuration says of those that say nothing. */
export function withDefaults(
  config: ModelConfig,
  options: RunOptions | undefined,
): RunOptions | undefined {
  const { timeoutMs, priority, timeoutOverride } = config;
  if (timeoutMs === undefined && priority === undefined && timeoutOverride) return options;
  const own = timeoutOverride ? options?.timeoutMs : undefined;
  return {
    ...options,
    timeoutMs: own ?? timeoutMs,
    priority: options?.priority ?? priority,
  };
}

/** An engine; see EngineOptions. `configure()` sets what the whole process shares. */
export function createEngine(options?: EngineOptions): Engine {
  return new Engine(options);
}
