// The repository: a folder of models and versions, and when what is served follows it.
import path from 'node:path';
import type { Catalog } from '../catalog/catalog.js';
import type { ServableLoader } from '../catalog/model-servable.js';
import { ClosedError, InvalidInputError, ModelError } from '../errors.js';
import type { ModelOptions } from '../types/model-options.js';
import type { RepositoryEvent } from './events.js';
import { reasonOf, scanModels, type LoadOverride, type NumberedOverride } from './folder.js';
import { Reconciler } from './reconciler.js';
import { VersionRecords, type IndexEntry } from './records.js';

/** When models are loaded and unloaded. */
export type ControlMode = 'none' | 'poll' | 'explicit';

export interface RepositoryOptions {
  /**
   * 'none': everything, once, at the start. 'poll': the folder is looked at again and again, and what
   * changed is loaded or unloaded. 'explicit': what load() and unload() say. Default 'none'.
   */
  control?: ControlMode;
  /** Polling interval in milliseconds. Default 15,000. */
  pollMs?: number;
  /** With 'explicit': names to load at the start; '*' is all. */
  models?: readonly string[];
  /** For models whose configuration does not say. */
  defaults?: ModelOptions;
  /** The first model that fails ends the start with its error. Default false: the index says why. */
  strict?: boolean;
  /** What happens, for a log. */
  onEvent?: (event: RepositoryEvent) => void;
}

const MODEL_NAME = /^[^./\\][^/\\]*$/;
const DEFAULT_POLL_MS = 15_000;

export class Repository {
  readonly folder: string;
  readonly control: ControlMode;
  readonly #catalog: Catalog;
  readonly #options: RepositoryOptions;
  readonly #records = new VersionRecords();
  readonly #reconciler: Reconciler;
  /** One change of a model at a time. */
  readonly #queues = new Map<string, Promise<unknown>>();
  /** What the last load call brought: a poll must not undo it. */
  readonly #overrides = new Map<string, NumberedOverride>();
  #loads = 0;
  #timer: NodeJS.Timeout | undefined;
  #started = false;
  #closed = false;

  /** @internal */
  constructor(
    catalog: Catalog,
    loader: ServableLoader,
    folder: string,
    options: RepositoryOptions,
  ) {
    this.folder = path.resolve(folder);
    this.control = options.control ?? 'none';
    if (!['none', 'poll', 'explicit'].includes(this.control)) {
      throw new InvalidInputError(
        `control: expected 'none', 'poll' or 'explicit', got ${JSON.stringify(this.control)}`,
      );
    }
    this.#catalog = catalog;
    this.#options = options;
    this.#reconciler = new Reconciler({
      folder: this.folder,
      catalog,
      loader,
      records: this.#records,
      overrides: this.#overrides,
      defaults: options.defaults,
      emit: (event) => this.#emit(event),
      change: (name, work) => this.#change(name, work),
      closed: () => this.#closed,
      nextLoad: () => ++this.#loads,
    });
  }

  /** Whether what is to be loaded at the start has been tried. */
  get started(): boolean {
    return this.#started;
  }

  /** @internal */
  async start(): Promise<void> {
    const there = await scanModels(this.folder);
    const { models = [] } = this.#options;
    const names =
      this.control !== 'explicit' || models.includes('*')
        ? [...new Set([...there, ...models.filter((name) => name !== '*')])]
        : models;
    // Clients that are too early are told so.
    const loads = names.map((name) => this.#catalog.loading(name, ''));
    try {
      for (const [i, name] of names.entries()) {
        // What serves nothing yet need not be spared.
        const failure = await this.#change(name, () =>
          this.#reconciler.tryApply(name, { throttle: false }),
        );
        loads[i]!();
        if (failure && this.#options.strict) throw failure;
      }
    } finally {
      for (const over of loads) over();
    }
    this.#started = true;
    if (this.control === 'poll' && !this.#closed) this.#schedule();
  }

  #schedule(): void {
    this.#timer = setTimeout(() => {
      void this.poll()
        .catch((error: unknown) => this.#emit({ kind: 'warning', name: '', text: reasonOf(error) }))
        .finally(() => {
          if (!this.#closed) this.#schedule();
        });
    }, this.#options.pollMs ?? DEFAULT_POLL_MS);
    this.#timer.unref();
  }

  /** Looks at the folder now, and loads and unloads what changed, as 'poll' does by itself. */
  async poll(): Promise<void> {
    const there = new Set(await scanModels(this.folder));
    for (const name of this.#records.names()) {
      if (!there.has(name) && !this.#overrides.get(name)?.files) await this.unload(name);
    }
    for (const name of there) {
      await this.#change(name, () => this.#reconciler.tryApply(name, { throttle: true }));
    }
  }

  /**
   * Loads a model, or loads it anew: what changed is swapped in once it is warmed, and the old versions
   * drain.
   *
   * @throws ModelError or InvalidInputError saying why the first version failed; what served goes on
   */
  async load(name: string, override: LoadOverride = {}): Promise<void> {
    if (!MODEL_NAME.test(name)) throw new InvalidInputError(`"${name}" is no name of a model`);
    await this.#change(name, async () => {
      const before = this.#overrides.get(name);
      this.#overrides.set(name, { ...override, loads: ++this.#loads });
      try {
        const failure = await this.#reconciler.apply(name, { throttle: true, anew: true });
        if (failure) throw failure;
      } catch (error) {
        if (before) this.#overrides.set(name, before);
        else this.#overrides.delete(name);
        // Files that came with the call are the caller's.
        if (override.files && error instanceof ModelError) {
          throw new InvalidInputError(error.message, { cause: error });
        }
        throw error;
      }
    });
  }

  /** Stops serving a model; requests under way end first. False when none was served. */
  unload(name: string): Promise<boolean> {
    this.#reconciler.cancelBuilds(name);
    return this.#change(name, async () => {
      this.#reconciler.forget(name);
      this.#overrides.delete(name);
      const records = this.#records.of(name);
      for (const record of records?.values() ?? []) {
        if (record.state === 'READY') record.state = 'UNLOADING';
      }
      const versions = this.#catalog.versions(name);
      const was = await this.#catalog.remove(name);
      for (const [version, record] of records ?? []) {
        Object.assign(record, { state: 'UNAVAILABLE', reason: 'unloaded', identity: '' });
        if (versions.includes(version)) this.#emit({ kind: 'unloaded', name, version });
      }
      return was;
    });
  }

  /** Every model of the folder and every version that was tried, with its state. */
  async index(onlyReady = false): Promise<IndexEntry[]> {
    const names = new Set([
      ...(await scanModels(this.folder).catch(() => [])),
      ...this.#records.names(),
    ]);
    const entries = [...names]
      .sort((a, b) => a.localeCompare(b))
      .flatMap((name) => this.#records.describe(name));
    return onlyReady ? entries.filter(({ state }) => state === 'READY') : entries;
  }

  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#timer);
    // What is built ends by itself, and what comes of it is closed: nobody waits minutes for that.
    this.#reconciler.cancelBuilds();
    await Promise.allSettled(this.#queues.values());
  }

  #change<T>(name: string, work: () => Promise<T>): Promise<T> {
    const before = this.#queues.get(name) ?? Promise.resolve();
    const after = before
      .catch(() => {})
      .then(() => {
        if (this.#closed) throw new ClosedError('the engine was closed');
        return work();
      });
    this.#queues.set(name, after);
    const forget = (): void => {
      if (this.#queues.get(name) === after) this.#queues.delete(name);
    };
    after.then(forget, forget);
    return after;
  }

  #emit(event: RepositoryEvent): void {
    this.#options.onEvent?.(event);
  }
}
