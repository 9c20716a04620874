// What lies in a repository's folder: models, their versions, their configuration and its files.
import { readdir, readFile, stat } from 'node:fs/promises';
import path from 'node:path';
import { InvalidInputError, ModelError } from '../errors.js';
import type { WarmUpSample } from '../types/warm-up.js';
import {
  CONFIG_FILES,
  emptyConfig,
  type ModelConfig,
  type WarmUpConfig,
} from '../catalog/model-config.js';

/** What a load call may bring. */
export interface LoadOverride {
  /** A configuration as JSON text, ours or Triton's, instead of the file's. */
  config?: string;
  /** Files by their path below the model's folder, such as `1/model.onnx`; then the folder's do not count. */
  files?: ReadonlyMap<string, Uint8Array>;
}

/** A load call's, and which of the repository's loads it was. */
export type NumberedOverride = LoadOverride & { loads: number };

/** What a version is made of, and how to tell that it changed. */
export interface Source {
  source: string | Uint8Array;
  identity: string;
}

const VERSION = /^[1-9][0-9]*$/;

/** For what may not be there; that it cannot be read just now is another thing. */
function ifMissing<T>(value: T): (error: NodeJS.ErrnoException) => T {
  return (error) => {
    if (error.code === 'ENOENT' || error.code === 'ENOTDIR') return value;
    throw error;
  };
}

export function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/**
 * Names of the folders that could be models.
 *
 * @throws ModelError when the folder cannot be read
 */
export async function scanModels(root: string): Promise<string[]> {
  try {
    const entries = await readdir(root, { withFileTypes: true });
    const names: string[] = [];
    for (const entry of entries) {
      if (entry.name.startsWith('.') || !(entry.isDirectory() || entry.isSymbolicLink())) continue;
      if (await isModel(root, entry.name)) names.push(entry.name);
    }
    return names.sort((a, b) => a.localeCompare(b));
  } catch (cause) {
    throw new ModelError(`cannot read the model repository "${root}": ${reasonOf(cause)}`, {
      cause,
    });
  }
}

/** A model has a configuration, or a version's folder with a model in it. */
async function isModel(root: string, name: string): Promise<boolean> {
  const files = await readdir(path.join(root, name)).catch(ifMissing<string[]>([]));
  if (CONFIG_FILES.some((file) => files.includes(file))) return true;
  for (const version of files.filter((file) => VERSION.test(file))) {
    const inside = await readdir(path.join(root, name, version)).catch(ifMissing<string[]>([]));
    if (inside.includes('model.onnx')) return true;
  }
  return false;
}

/** A model's folder, with what a load call brought in its place. */
export class ModelFolder {
  readonly #name: string;
  readonly #folder: string;
  readonly #override: NumberedOverride | undefined;

  constructor(root: string, name: string, override?: NumberedOverride) {
    this.#name = name;
    this.#folder = path.join(root, name);
    this.#override = override;
  }

  /**
   * The configuration and its text: of the load call, of the folder, or an empty one.
   *
   * @throws InvalidInputError naming the file and the mistake
   */
  async readConfig(): Promise<{ config: ModelConfig; text: string }> {
    // Loaded here: a program that only embeds the engine does not pay for a schema library.
    const { parseConfig, parseOverride } = await import('./config/read.js');
    const override = this.#override;
    if (override?.config !== undefined) {
      return { config: parseOverride(override.config, this.#name), text: override.config };
    }
    for (const file of CONFIG_FILES) {
      const full = path.join(this.#folder, file);
      const bytes = override?.files?.get(file);
      const text = bytes
        ? Buffer.from(bytes).toString('utf8')
        : await readFile(full, 'utf8').catch(ifMissing(undefined));
      if (text !== undefined) return { config: parseConfig(text, full, this.#name), text };
    }
    return { config: emptyConfig(), text: '' };
  }

  /** The versions that are there, with what they are made of. */
  async sources(file: string): Promise<Map<string, Source>> {
    const sources = new Map<string, Source>();
    const override = this.#override;
    const files = override?.files;
    if (files) {
      let number = 0;
      for (const [where, bytes] of files) {
        const [version = '', ...rest] = where.split('/');
        if (VERSION.test(version) && rest.join('/') === file) {
          sources.set(version, { source: bytes, identity: `bytes:${override.loads}:${number++}` });
        }
      }
      return sources;
    }
    for (const version of await readdir(this.#folder).catch(ifMissing<string[]>([]))) {
      if (!VERSION.test(version)) continue;
      const full = path.join(this.#folder, version, file);
      const found = await stat(full, { bigint: true }).catch(ifMissing(undefined));
      if (!found?.isFile()) continue;
      let identity = `${found.dev}:${found.ino}:${found.size}:${found.mtimeNs}`;
      // External data lies beside the model.
      for (const sibling of await readdir(path.dirname(full)).catch(ifMissing<string[]>([]))) {
        const beside = path.join(path.dirname(full), sibling);
        const other = await stat(beside, { bigint: true }).catch(ifMissing(undefined));
        if (other) identity += `;${sibling}:${other.size}:${other.mtimeNs}`;
      }
      sources.set(version, { source: full, identity });
    }
    return sources;
  }

  /** The samples with the data that the configuration names. */
  async warmUpSamples(
    samples: readonly WarmUpConfig[] | false | undefined,
  ): Promise<WarmUpSample[] | false | undefined> {
    if (!samples) return samples;
    return Promise.all(
      samples.map(async ({ files = {}, ...sample }) => {
        const inputs: Record<string, Uint8Array> = {};
        for (const [input, file] of Object.entries(files)) {
          inputs[input] = await this.#readBeside('warmup', file, 'warm-up');
        }
        return { ...sample, inputs };
      }),
    );
  }

  /** A file that the configuration names, below a folder of the model's. */
  async #readBeside(folder: string, file: string, what: string): Promise<Uint8Array> {
    const root = path.join(this.#folder, folder);
    const full = path.resolve(root, file);
    if (!full.startsWith(root + path.sep)) {
      throw new InvalidInputError(`${what}: "${file}" is not below ${root}`);
    }
    const given = this.#override?.files?.get(path.posix.join(folder, file));
    if (given) return given;
    return readFile(full).catch((cause: unknown) => {
      throw new ModelError(`${what}: ${reasonOf(cause)}`, { cause });
    });
  }

  /** Reads the label files into the configuration. */
  async readClassNames(config: ModelConfig): Promise<void> {
    for (const { name: output, labelFile } of config.outputs) {
      if (labelFile === undefined) continue;
      const text = await this.#readBeside('.', labelFile, `labels of output "${output}"`);
      config.classNames[output] = Buffer.from(text).toString('utf8').trimEnd().split(/\r?\n/);
    }
  }
}
