// The engine: the door to models by name and version.
import { Catalog } from './catalog/catalog.js';
import { emptyConfig } from './catalog/model-config.js';
import { ServableLoader, type ModelServable } from './catalog/model-servable.js';
import { InvalidInputError, type ErrorCode } from './errors.js';
import { native } from './native.js';
import { Repository, type RepositoryOptions } from './repository/repository.js';
import { startRuntime, stats } from './runtime/runtime.js';
import { Burst } from './serving/burst.js';
import type { ExchangeContext } from './serving/exchange.js';
import { Front, Interceptors } from './serving/front.js';
import { KINDS, type Interceptor } from './serving/interceptor.js';
import { LocalExchange, type InferOptions } from './serving/local.js';
import type { Serving } from './serving/serving.js';
import type { Tensor } from './tensor.js';
import type { ModelOptions } from './types/model-options.js';
import type { Inputs, Servable } from './types/servable.js';
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

export type { InferOptions };

/** Models by name and version. */
export class Engine implements Serving {
  /** What is served now. @internal */
  readonly catalog = new Catalog();
  /** What every request passes. @internal */
  readonly interceptors = new Interceptors();
  /** @internal */
  readonly burst = new Burst();
  /** @internal */
  readonly unmatched = new Map<ErrorCode, number>();
  readonly #context: ExchangeContext = {
    serving: this,
    front: new Front(new Interceptors(), this.interceptors),
  };
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
  ): Promise<ModelServable> {
    const { version = '1', replace = false, warmUp, ...modelOptions } = options;
    this.catalog.check(name, version, replace);
    const config = emptyConfig();
    config.options = modelOptions;
    const loaded = this.catalog.loading(name, version);
    try {
      const servable = await this.#loader.load({ name, version, source, config, warmUp });
      return this.catalog.add(servable, replace);
    } finally {
      loaded();
    }
  }

  /**
   * Serves a servable of the program's own under its name and version, by all protocols.
   *
   * @param options `replace`: it takes the place of the same version, which drains
   * @throws InvalidInputError when the name or version cannot be, or are taken; ClosedError
   */
  register<S extends Servable>(servable: S, options: { replace?: boolean } = {}): S {
    checkServable(servable);
    // Before it is the catalog's, which would close it.
    this.catalog.check(servable.name, servable.version, options.replace ?? false);
    return this.catalog.add(servable, options.replace ?? false);
  }

  /**
   * Has every request pass an interceptor from now on: those of all servers of the engine, and infer().
   *
   * @returns what takes it away again
   */
  use(interceptor: Interceptor): () => void {
    checkInterceptor(interceptor);
    return this.interceptors.use(interceptor);
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
    this.catalog.changed(); // it is ready
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
   * @throws (rejects) as Model.run(); NotFoundError for an unknown name or version; TercelError UNAVAILABLE
   *   while it is loaded or unloaded, UNIMPLEMENTED where it answers in parts; what an interceptor refuses with
   */
  infer(name: string, inputs: Inputs, options?: InferOptions): Promise<Record<string, Tensor>> {
    return new LocalExchange(this.#context, options).infer(name, inputs) as Promise<
      Record<string, Tensor>
    >;
  }

  stats(): EngineStats {
    return { ...stats(), unmatched: Object.fromEntries(this.unmatched) };
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

function checkServable(servable: Servable): void {
  const given = servable as Partial<Record<keyof Servable, unknown>>;
  const wrong = (what: string): InvalidInputError => new InvalidInputError(`register: ${what}`);
  if (typeof given !== 'object' || given === null) throw wrong('expected a servable');
  for (const key of ['name', 'version'] as const) {
    if (typeof given[key] !== 'string') throw wrong(`${key} must be a text`);
  }
  for (const key of ['inputs', 'outputs'] as const) {
    if (!Array.isArray(given[key])) throw wrong(`${key} must be an array of {name, dtype, shape}`);
  }
  if (given.accepts !== 'raw' && given.accepts !== 'tensors') {
    throw wrong("accepts: expected 'raw' or 'tensors'");
  }
  if (typeof given.start !== 'function') throw wrong('start must be a function');
}

function checkInterceptor(interceptor: Interceptor): void {
  const given = interceptor as Partial<Record<keyof Interceptor, unknown>>;
  if (typeof given !== 'object' || given === null || typeof given.name !== 'string') {
    throw new InvalidInputError('use: expected an interceptor, with a name');
  }
  for (const key of ['enter', 'start', 'end'] as const) {
    if (given[key] !== undefined && typeof given[key] !== 'function') {
      throw new InvalidInputError(`use: "${given.name}": ${key} must be a function`);
    }
  }
  for (const kind of interceptor.kinds ?? []) {
    if (!KINDS.includes(kind)) {
      throw new InvalidInputError(
        `use: "${given.name}": kinds: expected ${KINDS.join(', ')}, got ${JSON.stringify(kind)}`,
      );
    }
  }
}
