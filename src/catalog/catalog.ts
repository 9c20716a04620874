// The catalog: which servables there are, by name and version, and those on their way out.
import { ClosedError, InvalidInputError } from '../errors.js';
import type { Servable } from './model-servable.js';

interface Entry {
  readonly versions: Map<string, Servable>;
  /** The newest, for requests that do not say. */
  current: Servable | undefined;
}

const VERSION = /^[1-9][0-9]*$/;

export class Catalog {
  readonly #entries = new Map<string, Entry>();
  /** Old versions on their way out. */
  readonly #leaving = new Set<Servable>();
  readonly #draining = new Set<Promise<void>>();
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
   * Serves a version, in place of the same one if that is there: requests that come from now on get it,
   * those that are under way end on the old one.
   *
   * @throws as check(); then the servable is closed
   */
  add(servable: Servable, replace = true): Servable {
    const { name, version } = servable;
    try {
      this.check(name, version, replace);
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
    await Promise.all(leaving.map((servable) => this.#drain(servable)));
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
    const version = entry.current?.config.labels[label];
    return version === undefined ? undefined : entry.versions.get(String(version));
  }

  /** Closes every servable; what is in flight fails with ClosedError. Nothing is added any more. */
  async close(): Promise<void> {
    this.#closed = true;
    const servables = [...this.#entries.values()].flatMap(({ versions }) => [...versions.values()]);
    this.#entries.clear();
    // What drains is ended too: it may wait for ever.
    const all = [...servables, ...this.#leaving].map(({ model }) => model.close());
    await Promise.all([...all, ...this.#draining]);
  }
}
