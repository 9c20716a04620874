import path from 'node:path';
import { readdirSync } from 'node:fs';
import { ClosedError, InvalidInputError, ModelError } from '../errors.js';
import type { Tensor } from '../tensor.js';
import type { EngineStats, ModelOptions } from '../types.js';
import { loadModel } from './load.js';
import type { Inputs, Model } from './model.js';
import type { RunOptions } from './run-options.js';
import { stats } from './runtime.js';

/** A model under a name and a version. */
export interface Servable {
  readonly name: string;
  /** A positive whole number as text, as in the repository's folder names. */
  readonly version: string;
  readonly model: Model;
}

/** Folders `<name>/<version>/model.onnx` below a folder. */
export interface RepositoryEntry {
  name: string;
  version: string;
  path: string;
}

/**
 * Finds the models of a repository: `<folder>/<name>/<version>/model.onnx`, the version a positive whole
 * number. Everything else is passed over.
 *
 * @throws ModelError when the folder cannot be read
 */
export function scanRepository(folder: string): RepositoryEntry[] {
  const entries: RepositoryEntry[] = [];
  let names;
  try {
    names = readdirSync(folder, { withFileTypes: true });
  } catch (cause) {
    throw new ModelError(
      `cannot read the model repository "${folder}": ${(cause as Error).message}`,
      {
        cause,
      },
    );
  }
  for (const { name } of names.filter((entry) => entry.isDirectory() || entry.isSymbolicLink())) {
    let versions: string[];
    try {
      versions = readdirSync(path.join(folder, name));
    } catch {
      continue; // a link to something that is no folder
    }
    for (const version of versions) {
      if (!/^[1-9][0-9]*$/.test(version)) continue;
      const files = readdirSync(path.join(folder, name, version));
      if (files.includes('model.onnx')) {
        entries.push({ name, version, path: path.join(folder, name, version, 'model.onnx') });
      }
    }
  }
  return entries.sort(
    (a, b) => a.name.localeCompare(b.name) || Number(a.version) - Number(b.version),
  );
}

/** Models by name and version. */
export class Engine {
  readonly #servables = new Map<string, Map<string, Servable>>();
  #closed = false;

  /**
   * Loads a model under a name.
   *
   * @throws as loadModel(); InvalidInputError when the name and version are taken
   */
  async load(
    name: string,
    source: string | Uint8Array,
    options: ModelOptions & { version?: string } = {},
  ): Promise<Servable> {
    const { version = '1', ...modelOptions } = options;
    if (this.#closed) throw new ClosedError('the engine was closed');
    if (!/^[1-9][0-9]*$/.test(version)) {
      throw new InvalidInputError(`version: expected a positive whole number, got "${version}"`);
    }
    if (this.#servables.get(name)?.has(version)) {
      throw new InvalidInputError(`model "${name}" version ${version} is loaded already`);
    }
    const model = await loadModel(source, modelOptions);
    const servable: Servable = { name, version, model };
    if (this.#closed) {
      await model.close();
      throw new ClosedError('the engine was closed');
    }
    let versions = this.#servables.get(name);
    if (!versions) this.#servables.set(name, (versions = new Map<string, Servable>()));
    versions.set(version, servable);
    return servable;
  }

  /** Loads every model of a repository. Reports each as it is ready. */
  async loadRepository(
    folder: string,
    options: ModelOptions = {},
    onLoaded: (servable: Servable, ms: number) => void = () => {},
  ): Promise<void> {
    for (const { name, version, path: file } of scanRepository(folder)) {
      const start = performance.now();
      onLoaded(await this.load(name, file, { ...options, version }), performance.now() - start);
    }
  }

  /** Names, in the order they were loaded. */
  names(): string[] {
    return [...this.#servables.keys()];
  }

  /** Versions of a model, oldest first; none for an unknown name. */
  versions(name: string): string[] {
    return [...(this.#servables.get(name)?.keys() ?? [])].sort((a, b) => Number(a) - Number(b));
  }

  /** The model under a name, of the given version or the newest. */
  find(name: string, version?: string): Servable | undefined {
    const wanted = version ?? this.versions(name).at(-1);
    return wanted === undefined ? undefined : this.#servables.get(name)?.get(wanted);
  }

  /**
   * Runs a model by name.
   *
   * @throws (rejects) as Model.run(); InvalidInputError for an unknown name
   */
  infer(
    name: string,
    inputs: Inputs,
    options?: RunOptions & { version?: string },
  ): Promise<Record<string, Tensor>> {
    const servable = this.find(name, options?.version);
    if (servable) return servable.model.run(inputs, options);
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
    const servables = [...this.#servables.values()].flatMap((versions) => [...versions.values()]);
    this.#servables.clear();
    await Promise.all(servables.map(({ model }) => model.close()));
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

export function createEngine(): Engine {
  return new Engine();
}
