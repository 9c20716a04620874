// Brings what is served of a model in line with its folder.
//
//   scan -> wanted versions -> load, warm -> swap -> retire what is not wanted
//             (policy)          failed: the old one goes on serving, the index says why
import path from 'node:path';
import type { Catalog } from '../catalog/catalog.js';
import type { ModelConfig } from '../catalog/model-config.js';
import type { ModelServable, ServableLoader } from '../catalog/model-servable.js';
import { hasEngines, keepsEngines, withoutTensorRt } from '../catalog/tensorrt-cache.js';
import { InvalidInputError, ModelError } from '../errors.js';
import type { ModelOptions } from '../types/model-options.js';
import { BackgroundLoads } from './background-loads.js';
import type { RepositoryEvent } from './events.js';
import { ModelFolder, reasonOf, type NumberedOverride } from './folder.js';
import { checkLoadOverride } from './load-override.js';
import type { VersionRecord, VersionRecords } from './records.js';
import { wantedVersions } from './version-policy.js';

const BUILDING = 'serving without TensorRT while its engines are built';

/** What a reconciler works with. */
export interface ReconcilerContext {
  readonly folder: string;
  readonly catalog: Catalog;
  readonly loader: ServableLoader;
  readonly records: VersionRecords;
  /** What the last load call brought: a poll must not undo it. */
  readonly overrides: ReadonlyMap<string, NumberedOverride>;
  /** For models whose configuration does not say. */
  readonly defaults: ModelOptions | undefined;
  emit(event: RepositoryEvent): void;
  /** Does work when it is the model's turn: one change of a model at a time. */
  change<T>(name: string, work: () => Promise<T>): Promise<T>;
  closed(): boolean;
  /** A number that no load had yet. */
  nextLoad(): number;
}

/** How a model is brought in line. */
export interface Reconciling {
  /** Gives way to what is served meanwhile. */
  readonly throttle: boolean;
  /** Loads what is there again, also where nothing changed. */
  readonly anew?: boolean;
}

/** What there is of a model's version, and what it was asked to be. */
interface Wanted {
  readonly name: string;
  readonly version: string;
  readonly source: string | Uint8Array;
  readonly config: ModelConfig;
}

export class Reconciler {
  readonly #context: ReconcilerContext;
  /** The configuration that the versions were loaded with. */
  readonly #configTexts = new Map<string, string>();
  /** Loads with TensorRT, while its engines are built. */
  readonly #builds = new BackgroundLoads();

  constructor(context: ReconcilerContext) {
    this.#context = context;
  }

  /** As apply(); what no version can be told for is recorded too. */
  async tryApply(name: string, reconciling: Reconciling): Promise<Error | undefined> {
    try {
      return await this.apply(name, reconciling);
    } catch (error) {
      this.#fail(name, '', reasonOf(error));
      return error as Error;
    }
  }

  /**
   * Brings what is served in line with the folder. REQUIRES: it is the model's turn.
   *
   * @returns the first version's failure, which is recorded
   * @throws what no version can be told for
   */
  async apply(name: string, reconciling: Reconciling): Promise<Error | undefined> {
    const { records, overrides, defaults, catalog } = this.#context;
    const { config, text } = await this.#folderOf(name).readConfig();
    if (config.file !== path.basename(config.file) || config.file === '..') {
      throw new InvalidInputError(`model "${name}": "${config.file}" is no name of a file`);
    }
    const sources = await this.#folderOf(name).sources(config.file);
    if (overrides.get(name)?.config !== undefined) checkLoadOverride(name, config.options);
    const wanted = this.#wanted(name, config, [...sources.keys()]);
    config.options = { ...defaults, ...config.options, throttle: reconciling.throttle };
    if (this.#configTexts.get(name) !== text || reconciling.anew) {
      for (const warning of config.warnings) this.#warn(name, warning);
    }
    let failure: Error | undefined;
    for (const version of wanted) {
      const record = records.at(name, version);
      const { source, identity } = sources.get(version)!;
      const mark = `${identity}\n${text}`;
      // What failed is not tried again until it changes.
      if (!reconciling.anew && record.identity === mark) continue;
      try {
        await this.#loadVersion({ name, version, source, config }, record, reconciling);
      } catch (error) {
        failure ??= error as Error;
      }
      record.identity = mark;
    }
    this.#configTexts.set(name, text);
    const serving = catalog.versions(name);
    if (wanted.some((version) => serving.includes(version))) {
      this.#retire(
        name,
        serving.filter((version) => !wanted.includes(version)),
      );
    }
    records.forget(name, (version) => sources.has(version));
    return failure;
  }

  /** Ends what is built for a model, of one version of it, or all. */
  cancelBuilds(name?: string): void {
    this.#builds.cancel(name);
  }

  /** A model is unloaded: what comes next is a first load. */
  forget(name: string): void {
    this.#builds.cancel(name);
    this.#configTexts.delete(name);
  }

  #wanted(name: string, config: ModelConfig, there: readonly string[]): string[] {
    const wanted = wantedVersions(config.versions, there);
    if (there.length === 0) {
      throw new InvalidInputError(
        `model "${name}" has no version: expected ${path.join(this.#context.folder, name, '<version>', config.file)}`,
      );
    }
    if (wanted.length === 0) {
      throw new ModelError(
        `the version policy of model "${name}" serves none of its versions ${there.join(', ')}`,
      );
    }
    for (const [label, version] of Object.entries(config.labels)) {
      if (!wanted.includes(String(version))) {
        this.#warn(name, `label "${label}" names version ${version}, which is not served`);
      }
    }
    return wanted;
  }

  async #loadVersion(
    wanted: Wanted,
    record: VersionRecord,
    reconciling: Reconciling,
  ): Promise<void> {
    const { catalog, loader } = this.#context;
    const { name, version, source, config } = wanted;
    const start = performance.now();
    const served = catalog.find(name, version) !== undefined;
    if (!served) Object.assign(record, { state: 'LOADING', reason: '' });
    const loaded = catalog.loading(name, version);
    let servable: ModelServable;
    let build: (() => void) | undefined;
    try {
      const options = loader.options(config);
      const isBuilding = keepsEngines(options) && !(await hasEngines(source, options));
      const files = this.#folderOf(name);
      const warmUp = await files.warmUpSamples(config.warmUp);
      await files.readClassNames(config);
      // A load asked for is a load, also where the file is the same.
      const generation = reconciling.anew ? this.#context.nextLoad() : 0;
      const load = (options: ModelOptions): Promise<ModelServable> =>
        loader.load({ ...wanted, warmUp, generation }, options);
      servable = await load(isBuilding ? withoutTensorRt(options) : options);
      catalog.add(servable);
      // What was built for the one that it replaces.
      this.#builds.cancel(name, version);
      if (isBuilding) build = () => this.#build(servable, record, options, load);
    } catch (error) {
      const reason = reasonOf(error);
      if (served) {
        // The old one of the same version goes on.
        record.reason = `serving what was loaded before: ${reason}`;
        this.#context.emit({ kind: 'failed', name, version, reason });
      } else {
        record.state = 'LOADING';
        this.#fail(name, version, reason);
      }
      throw error;
    } finally {
      loaded();
    }
    Object.assign(record, { state: 'READY', reason: build ? BUILDING : '' });
    this.#context.emit({ kind: 'loaded', name, version, ms: performance.now() - start });
    build?.();
  }

  /** Loads a version with TensorRT while the one without serves, and puts it in its place. */
  #build(
    serving: ModelServable,
    record: VersionRecord,
    options: ModelOptions,
    load: (options: ModelOptions) => Promise<ModelServable>,
  ): void {
    const context = this.#context;
    const { catalog } = context;
    const { name, version } = serving;
    this.#builds.start(name, version, async (signal) => {
      const start = performance.now();
      context.emit({ kind: 'building', name, version });
      let built: ModelServable | undefined;
      try {
        built = await load({ ...options, throttle: true, signal });
        const ready = built;
        await context.change(name, () => {
          if (catalog.find(name, version) !== serving || signal.aborted) return Promise.resolve();
          catalog.add(ready);
          built = undefined;
          // A newer load may have failed meanwhile.
          if (record.reason === BUILDING) record.reason = '';
          context.emit({ kind: 'loaded', name, version, ms: performance.now() - start });
          return Promise.resolve();
        });
      } catch (error) {
        if (signal.aborted || context.closed()) return;
        record.reason = `serving without TensorRT: ${reasonOf(error)}`;
        context.emit({ kind: 'failed', name, version, reason: record.reason });
      } finally {
        // It came too late.
        await built?.close();
      }
    });
  }

  #retire(name: string, versions: readonly string[]): void {
    for (const version of versions) {
      const record = this.#context.records.at(name, version);
      this.#builds.cancel(name, version);
      Object.assign(record, { state: 'UNLOADING', identity: '' });
      // Draining takes as long as the requests do: the next change need not wait for it.
      this.#context.catalog
        .remove(name, version)
        .then(() => {
          // Loaded again meanwhile.
          if (record.state !== 'UNLOADING') return;
          Object.assign(record, { state: 'UNAVAILABLE', reason: 'unloaded' });
          this.#context.emit({ kind: 'unloaded', name, version });
        })
        .catch(() => {});
    }
  }

  #folderOf(name: string): ModelFolder {
    return new ModelFolder(this.#context.folder, name, this.#context.overrides.get(name));
  }

  #warn(name: string, text: string): void {
    this.#context.emit({ kind: 'warning', name, text });
  }

  #fail(name: string, version: string, reason: string): void {
    if (!this.#context.records.fail(name, version, reason)) return;
    this.#context.emit({ kind: 'failed', name, version, reason });
  }
}
