// The catalog: which servables there are, by name, version and label, those that are to come, and those on
// their way out. It says when that changes.
import { ClosedError, InvalidInputError } from '../errors.js';
import type { Servable } from '../types/servable.js';
import { closeServable } from './tally.js';

/** What a version is doing. */
export type VersionState = 'LOADING' | 'READY' | 'UNLOADING' | 'UNAVAILABLE';

export interface CatalogEntry {
  readonly name: string;
  readonly version: string;
  readonly state: VersionState;
}

interface Entry {
  readonly versions: Map<string, Servable>;
  /** The newest, for requests that do not say. */
  current: Servable | undefined;
}

const VERSION = /^[1-9][0-9]*$/;

export class Catalog {
  readonly #entries = new Map<string, Entry>();
  /** Loads under way, by name. */
  readonly #loading = new Map<string, string[]>();
  /** Old versions on their way out. */
  readonly #leaving = new Set<Servable>();
  readonly #draining = new Set<Promise<void>>();
  readonly #listeners = new Set<() => void>();
  #closed = false;

  get closed(): boolean {
    return this.#closed;
  }

  /** @throws ClosedError once the catalog was closed */
  checkOpen(): void {
    if (this.#closed) throw new ClosedError('the engine was closed');
  }

  /**
   * Sees whether a servable could be added under a name and version.
   *
   * @throws ClosedError; InvalidInputError when they cannot be, or are taken and not to be replaced
   */
  check(name: string, version: string, replace: boolean): void {
    this.checkOpen();
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
   * Notes that a version is being loaded; what is given says that the load is over, however it ended.
   *
   * @param version '' where none can be told yet
   */
  loading(name: string, version: string): () => void {
    const versions = this.#loading.get(name) ?? [];
    versions.push(version);
    this.#loading.set(name, versions);
    this.changed();
    let over = false;
    return () => {
      if (over) return;
      over = true;
      versions.splice(versions.indexOf(version), 1);
      if (versions.length === 0) this.#loading.delete(name);
      this.changed();
    };
  }

  /**
   * Serves a version, in place of the same one if that is there: requests that come from now on get it,
   * those that are under way end on the old one.
   *
   * @throws as check(); then the servable is closed
   */
  add<S extends Servable>(servable: S, replace = true): S {
    const { name, version } = servable;
    try {
      this.check(name, version, replace);
    } catch (error) {
      closeServable(servable, false).catch((cause: unknown) => reportClose(servable, cause));
      throw error;
    }
    let entry = this.#entries.get(name);
    if (!entry) this.#entries.set(name, (entry = { versions: new Map(), current: undefined }));
    const old = entry.versions.get(version);
    entry.versions.set(version, servable);
    this.#choose(entry);
    if (old && old !== servable) {
      this.#drain(old).catch((cause: unknown) => reportClose(old, cause));
    }
    this.changed();
    return servable;
  }

  #choose(entry: Entry): void {
    const newest = [...entry.versions.keys()].sort((a, b) => Number(b) - Number(a))[0];
    entry.current = newest === undefined ? undefined : entry.versions.get(newest);
  }

  #drain(servable: Servable): Promise<void> {
    this.#leaving.add(servable);
    const closed = closeServable(servable, true).finally(() => {
      this.#leaving.delete(servable);
      this.#draining.delete(closed);
      this.changed();
    });
    this.#draining.add(closed);
    return closed;
  }

  /**
   * Stops serving a name, or one version of it. What is under way goes on to its end; the promise
   * resolves when it is over and the memory is back. False when there is no such servable.
   */
  async remove(name: string, version?: string): Promise<boolean> {
    const entry = this.#entries.get(name);
    const leaving = [...(entry?.versions.values() ?? [])].filter(
      (servable) => version === undefined || servable.version === version,
    );
    if (!entry || leaving.length === 0) return false;
    for (const servable of leaving) entry.versions.delete(servable.version);
    if (entry.versions.size === 0) this.#entries.delete(name);
    else this.#choose(entry);
    const drained = Promise.all(leaving.map((servable) => this.#drain(servable)));
    this.changed();
    await drained;
    return true;
  }

  /** Names, in the order they were added. */
  names(): string[] {
    return [...this.#entries.keys()];
  }

  /** Versions of a name that are ready, oldest first; none for an unknown one. */
  versions(name: string): string[] {
    const versions = this.#entries.get(name)?.versions.keys() ?? [];
    return [...versions].sort((a, b) => Number(a) - Number(b));
  }

  /** The servable under a name, of the given version or label, or the newest. */
  find(name: string, version?: string): Servable | undefined {
    const entry = this.#entries.get(name);
    if (!entry || version === undefined) return entry?.current;
    return entry.versions.get(version) ?? this.#labelled(entry, version);
  }

  #labelled(entry: Entry, label: string): Servable | undefined {
    const version = entry.current?.about?.labels?.[label];
    return version === undefined ? undefined : entry.versions.get(String(version));
  }

  /** What a name is doing, or one version of it. */
  stateOf(name: string, version?: string): VersionState {
    if (this.find(name, version)) return 'READY';
    const loads = this.#loading.get(name) ?? [];
    if (loads.some((each) => version === undefined || each === '' || each === version)) {
      return 'LOADING';
    }
    for (const servable of this.#leaving) {
      const isIt = version === undefined || servable.version === version;
      if (servable.name === name && isIt) return 'UNLOADING';
    }
    return 'UNAVAILABLE';
  }

  /** Every version that is ready, to come, or on its way out. */
  list(): CatalogEntry[] {
    const entries = new Map<string, CatalogEntry>();
    const put = (name: string, version: string, state: VersionState): void => {
      const key = JSON.stringify([name, version]);
      if (!entries.has(key)) entries.set(key, { name, version, state });
    };
    for (const name of this.#entries.keys()) {
      for (const version of this.versions(name)) put(name, version, 'READY');
    }
    for (const [name, versions] of this.#loading) {
      for (const version of versions) put(name, version, 'LOADING');
    }
    for (const { name, version } of this.#leaving) put(name, version, 'UNLOADING');
    return [...entries.values()];
  }

  /** Calls when what is served, to come or on its way out has changed; what is given ends that. */
  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Tells the listeners. @internal */
  changed(): void {
    for (const listener of [...this.#listeners]) listener();
  }

  /** Closes every servable; what is in flight fails with ClosedError. Nothing is added any more. */
  async close(): Promise<void> {
    this.#closed = true;
    const servables = [...this.#entries.values()].flatMap(({ versions }) => [...versions.values()]);
    this.#entries.clear();
    // What drains is ended too: it may wait for ever.
    const all = [...servables, ...this.#leaving].map((servable) => closeServable(servable, false));
    this.changed();
    const closed = await Promise.allSettled([...all, ...this.#draining]);
    const failed = closed.find(({ status }) => status === 'rejected');
    if (failed) throw (failed as PromiseRejectedResult).reason;
  }
}

/** Logs a failed close that no caller awaits: a program's own close() may throw. */
function reportClose({ name, version }: Servable, cause: unknown): void {
  console.error(`model "${name}" version ${version} could not be closed:`, cause);
}
