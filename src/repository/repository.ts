// The repository: a folder of models and versions, and what of it is served.
//
//   scan -> wanted versions -> prepare (load, warm) -> swap -> retire what is not wanted
//             (policy)          failed: the old one goes on serving, the index says why
import path from 'node:path';
import { ClosedError, InvalidInputError, ModelError } from '../errors.js';
import type { ModelOptions } from '../types/model-options.js';
import type { ModelConfig, VersionPolicy } from '../catalog/model-config.js';
import { Beside } from './background-loads.js';
import { hasEngines, keepsEngines, withoutTensorRt } from '../catalog/tensorrt-cache.js';
import type { Engine, Servable } from '../engine.js';
import { checkLoadCall } from './load-override.js';
import {
  ModelFolder,
  reasonOf,
  scanModels,
  type LoadOverride,
  type NumberedOverride,
} from './folder.js';

/** When models are loaded and unloaded. */
export type ControlMode = 'none' | 'poll' | 'explicit';

export interface RepositoryOptions {
  /**
   * 'none': everything, once, at the start. 'poll': the folder is looked at again and again, and what
   * changed is loaded or unloaded. 'explicit': what load() and unload() say. Default 'none'.
   */
  control?: ControlMode;
  /** Milliseconds between two looks. Default 15,000. */
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

export type RepositoryEvent =
  | { kind: 'loaded'; name: string; version: string; ms: number }
  | { kind: 'unloaded'; name: string; version: string }
  | { kind: 'failed'; name: string; version: string; reason: string }
  /** TensorRT's engines are built, which takes minutes; meanwhile the next provider serves. */
  | { kind: 'building'; name: string; version: string }
  | { kind: 'warning'; name: string; text: string };

export type VersionState = 'LOADING' | 'READY' | 'UNLOADING' | 'UNAVAILABLE';

export interface IndexEntry {
  name: string;
  /** '' where no version could be told. */
  version: string;
  state: VersionState;
  /** Why it is not ready; also of a version that serves while a newer load of it failed. */
  reason: string;
}

interface VersionRecord {
  state: VersionState;
  reason: string;
  identity: string;
}

const BUILDING = 'serving without TensorRT while its engines are built';
const MODEL_NAME = /^[^./\\][^/\\]*$/;
const DEFAULT_POLL_MS = 15_000;

/** The versions that a policy serves, of those that are there. */
export function wantedVersions(policy: VersionPolicy, there: readonly string[]): string[] {
  const sorted = [...there].sort((a, b) => Number(a) - Number(b));
  if (policy === 'all') return sorted;
  if ('latest' in policy) return sorted.slice(-policy.latest);
  return sorted.filter((version) => policy.specific.includes(Number(version)));
}

export class Repository {
  readonly folder: string;
  readonly control: ControlMode;
  readonly #engine: Engine;
  readonly #options: RepositoryOptions;
  readonly #records = new Map<string, Map<string, VersionRecord>>();
  /** One change of a model at a time. */
  readonly #queues = new Map<string, Promise<unknown>>();
  /** What the last load call brought: a poll must not undo it. */
  readonly #overrides = new Map<string, NumberedOverride>();
  #loads = 0;
  /** Loads with TensorRT, while its engines are built. */
  readonly #builds = new Beside();
  /** The configuration that the versions were loaded with. */
  readonly #configTexts = new Map<string, string>();
  #timer: NodeJS.Timeout | undefined;
  #started = false;
  #closed = false;

  /** @internal */
  constructor(engine: Engine, folder: string, options: RepositoryOptions) {
    this.folder = path.resolve(folder);
    this.control = options.control ?? 'none';
    if (!['none', 'poll', 'explicit'].includes(this.control)) {
      throw new InvalidInputError(
        `control: expected 'none', 'poll' or 'explicit', got ${JSON.stringify(this.control)}`,
      );
    }
    this.#engine = engine;
    this.#options = options;
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
    for (const name of names) {
      // What serves nothing yet need not be spared.
      const failure = await this.#change(name, () => this.#tryApply(name, { throttle: false }));
      if (failure && this.#options.strict) throw failure;
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
    for (const name of this.#records.keys()) {
      if (!there.has(name) && !this.#overrides.get(name)?.files) await this.unload(name);
    }
    for (const name of there) {
      await this.#change(name, () => this.#tryApply(name, { throttle: true }));
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
        const failure = await this.#apply(name, { throttle: true, anew: true });
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
    this.#builds.cancel(name);
    return this.#change(name, async () => {
      this.#builds.cancel(name);
      this.#overrides.delete(name);
      this.#configTexts.delete(name);
      const records = this.#records.get(name);
      for (const record of records?.values() ?? []) {
        if (record.state === 'READY') record.state = 'UNLOADING';
      }
      const versions = this.#engine.versions(name);
      const was = await this.#engine.unload(name);
      for (const [version, record] of records ?? []) {
        Object.assign(record, { state: 'UNAVAILABLE', reason: 'unloaded', identity: '' });
        if (versions.includes(version)) this.#emit({ kind: 'unloaded', name, version });
      }
      return was;
    });
  }

  /** Every model of the folder and every version that was tried, with its state. */
  async index(onlyReady = false): Promise<IndexEntry[]> {
    const entries: IndexEntry[] = [];
    const names = new Set([
      ...(await scanModels(this.folder).catch(() => [])),
      ...this.#records.keys(),
    ]);
    for (const name of [...names].sort((a, b) => a.localeCompare(b))) {
      const records = this.#records.get(name);
      if (!records || records.size === 0) {
        entries.push({ name, version: '', state: 'UNAVAILABLE', reason: 'not loaded' });
      }
      for (const [version, { state, reason }] of records ?? []) {
        entries.push({ name, version, state, reason });
      }
    }
    return onlyReady ? entries.filter(({ state }) => state === 'READY') : entries;
  }

  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#timer);
    // What is built ends by itself, and what comes of it is closed: nobody waits minutes for that.
    this.#builds.cancel();
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

  #record(name: string, version: string): VersionRecord {
    let records = this.#records.get(name);
    if (!records) this.#records.set(name, (records = new Map<string, VersionRecord>()));
    // A failure that no version could be told for is over.
    if (version !== '') records.delete('');
    let record = records.get(version);
    if (!record) {
      records.set(version, (record = { state: 'UNAVAILABLE', reason: '', identity: '' }));
    }
    return record;
  }

  #fail(name: string, version: string, reason: string): void {
    const record = this.#record(name, version);
    if (record.reason === reason && record.state === 'UNAVAILABLE') return; // a poll finds it again
    Object.assign(record, { state: 'UNAVAILABLE', reason });
    this.#emit({ kind: 'failed', name, version, reason });
  }

  #folderOf(name: string): ModelFolder {
    return new ModelFolder(this.folder, name, this.#overrides.get(name));
  }

  /** As #apply; what no version can be told for is recorded too. */
  async #tryApply(name: string, how: { throttle: boolean }): Promise<Error | undefined> {
    try {
      return await this.#apply(name, how);
    } catch (error) {
      this.#fail(name, '', reasonOf(error));
      return error as Error;
    }
  }

  /** Brings what is served in line with the folder; the first version's failure, which is recorded. */
  async #apply(
    name: string,
    how: { throttle: boolean; anew?: boolean },
  ): Promise<Error | undefined> {
    const { config, text } = await this.#folderOf(name).readConfig();
    if (config.file !== path.basename(config.file) || config.file === '..') {
      throw new InvalidInputError(`model "${name}": "${config.file}" is no name of a file`);
    }
    const sources = await this.#folderOf(name).sources(config.file);
    if (this.#overrides.get(name)?.config !== undefined) checkLoadCall(name, config.options);
    const wanted = wantedVersions(config.versions, [...sources.keys()]);
    if (sources.size === 0) {
      throw new InvalidInputError(
        `model "${name}" has no version: expected ${path.join(this.folder, name, '<version>', config.file)}`,
      );
    }
    if (wanted.length === 0) {
      throw new ModelError(
        `the version policy of model "${name}" serves none of its versions ${[...sources.keys()].join(', ')}`,
      );
    }
    for (const [label, version] of Object.entries(config.labels)) {
      if (!wanted.includes(String(version))) {
        this.#emit({
          kind: 'warning',
          name,
          text: `label "${label}" names version ${version}, which is not served`,
        });
      }
    }
    config.options = { ...this.#options.defaults, ...config.options, throttle: how.throttle };
    const reconfigured = this.#configTexts.get(name) !== text;
    if (reconfigured || how.anew) {
      for (const warning of config.warnings) this.#emit({ kind: 'warning', name, text: warning });
    }
    let failure: Error | undefined;
    for (const version of wanted) {
      const record = this.#record(name, version);
      const { source, identity } = sources.get(version)!;
      const mark = `${identity}\n${text}`;
      // What failed is not tried again until it changes.
      if (!how.anew && record.identity === mark) continue;
      try {
        await this.#loadVersion(name, version, source, config, record, how);
      } catch (error) {
        failure ??= error as Error;
      }
      record.identity = mark;
    }
    this.#configTexts.set(name, text);
    const serving = this.#engine.versions(name);
    if (wanted.some((version) => serving.includes(version))) {
      await this.#retire(
        name,
        serving.filter((version) => !wanted.includes(version)),
      );
    }
    // Versions that are gone and never served are not worth a line.
    for (const [version, record] of this.#records.get(name) ?? []) {
      if (!sources.has(version) && record.state !== 'READY')
        this.#records.get(name)!.delete(version);
    }
    return failure;
  }

  async #loadVersion(
    name: string,
    version: string,
    source: string | Uint8Array,
    config: ModelConfig,
    record: VersionRecord,
    how: { anew?: boolean },
  ): Promise<void> {
    const start = performance.now();
    const served = this.#engine.find(name, version) !== undefined;
    if (!served) Object.assign(record, { state: 'LOADING', reason: '' });
    let servable: Servable;
    let build: (() => void) | undefined;
    try {
      const options = this.#engine.options(config);
      const isBuilding = keepsEngines(options) && !(await hasEngines(source, options));
      const files = this.#folderOf(name);
      const samples = await files.warmUpSamples(config.warmUp);
      await files.readClassNames(config);
      // A load asked for is a load, also where the file is the same.
      const generation = how.anew ? ++this.#loads : 0;
      const prepare = (how: ModelOptions): Promise<Servable> =>
        this.#engine.prepare(name, version, source, config, samples, generation, how);
      servable = await prepare(isBuilding ? withoutTensorRt(options) : options);
      this.#engine.add(servable);
      // What was built for the one that it replaces.
      this.#builds.cancel(name, version);
      if (isBuilding) build = () => this.#build(servable, record, options, prepare);
    } catch (error) {
      const reason = reasonOf(error);
      if (served) {
        // The old one of the same version goes on.
        record.reason = `serving what was loaded before: ${reason}`;
        this.#emit({ kind: 'failed', name, version, reason });
      } else {
        record.state = 'LOADING';
        this.#fail(name, version, reason);
      }
      throw error;
    }
    const reason = build ? BUILDING : '';
    Object.assign(record, { state: 'READY', reason });
    this.#emit({ kind: 'loaded', name, version, ms: performance.now() - start });
    build?.();
  }

  /** Loads a version with TensorRT beside the one that serves without, and puts it in its place. */
  #build(
    serving: Servable,
    record: VersionRecord,
    options: ModelOptions,
    prepare: (options: ModelOptions) => Promise<Servable>,
  ): void {
    const { name, version } = serving;
    this.#builds.start(name, version, async (signal) => {
      const start = performance.now();
      this.#emit({ kind: 'building', name, version });
      let built: Servable | undefined;
      try {
        built = await prepare({ ...options, throttle: true, signal });
        const ready = built;
        await this.#change(name, () => {
          if (this.#engine.find(name, version) !== serving || signal.aborted)
            return Promise.resolve();
          this.#engine.add(ready);
          built = undefined;
          // A newer load may have failed meanwhile.
          if (record.reason === BUILDING) record.reason = '';
          this.#emit({ kind: 'loaded', name, version, ms: performance.now() - start });
          return Promise.resolve();
        });
      } catch (error) {
        if (signal.aborted || this.#closed) return;
        record.reason = `serving without TensorRT: ${reasonOf(error)}`;
        this.#emit({ kind: 'failed', name, version, reason: record.reason });
      } finally {
        // It came too late.
        await built?.model.close();
      }
    });
  }

  async #retire(name: string, versions: readonly string[]): Promise<void> {
    for (const version of versions) {
      const record = this.#record(name, version);
      this.#builds.cancel(name, version);
      Object.assign(record, { state: 'UNLOADING', identity: '' });
      // Draining takes as long as the requests do: the next change need not wait for it.
      this.#engine
        .unload(name, version)
        .then(() => {
          // Loaded again meanwhile.
          if (record.state !== 'UNLOADING') return;
          Object.assign(record, { state: 'UNAVAILABLE', reason: 'unloaded' });
          this.#emit({ kind: 'unloaded', name, version });
        })
        .catch(() => {});
    }
    return Promise.resolve();
  }
}
