// What the calls of Triton's model repository extension bring: index, load.
//
// Source: Triton's "Model Repository Extension".
import { InvalidInputError } from '../../errors.js';

/** What `POST /v2/repository/index` asks. Throws InvalidInputError. */
export function decodeIndexRequest(json: unknown): { onlyReady: boolean } {
  if (json === undefined) return { onlyReady: false };
  if (typeof json !== 'object' || json === null || Array.isArray(json)) {
    throw new InvalidInputError('the request must be a JSON object');
  }
  const ready = (json as { ready?: unknown }).ready ?? false;
  if (typeof ready !== 'boolean') {
    throw new InvalidInputError(`ready: expected true or false, got ${JSON.stringify(ready)}`);
  }
  return { onlyReady: ready };
}

/** What a load call brings. */
export interface LoadParameters {
  /** A configuration as JSON text. */
  config?: string;
  /** Files by their path below the model's folder. */
  files?: Map<string, Uint8Array>;
}

/**
 * What a load call's parameters say, whichever way they came: `config`, and files by `file:<path>`.
 *
 * @throws InvalidInputError naming the parameter
 */
export function loadParameters(parameters: Iterable<[string, unknown]>): LoadParameters {
  let config: string | undefined;
  const files = new Map<string, Uint8Array>();
  for (const [name, value] of parameters) {
    if (name === 'config') {
      if (typeof value !== 'string') {
        throw new InvalidInputError('parameters.config: expected JSON in a string');
      }
      config = value;
    } else if (name.startsWith('file:')) {
      if (!(value instanceof Uint8Array)) {
        throw new InvalidInputError(`parameters["${name}"]: expected the file's bytes`);
      }
      files.set(name.slice('file:'.length), value);
    } else {
      throw new InvalidInputError(
        `parameters["${name}"] is not known; a load takes "config" and "file:<path>"`,
      );
    }
  }
  if (files.size > 0 && config === undefined) {
    throw new InvalidInputError('parameters: "file:" needs "config" beside it');
  }
  return { ...(config !== undefined && { config }), ...(files.size > 0 && { files }) };
}

/**
 * What `POST /v2/repository/models/{m}/load` brings: files are in base64.
 *
 * @throws InvalidInputError naming the parameter
 */
export function decodeLoadRequest(json: unknown): LoadParameters {
  if (json === undefined) return {};
  if (typeof json !== 'object' || json === null || Array.isArray(json)) {
    throw new InvalidInputError('the request must be a JSON object');
  }
  const parameters = (json as { parameters?: unknown }).parameters ?? {};
  if (typeof parameters !== 'object' || parameters === null || Array.isArray(parameters)) {
    throw new InvalidInputError('parameters must be an object');
  }
  return loadParameters(
    Object.entries(parameters as Record<string, unknown>).map(([name, value]) => {
      if (!name.startsWith('file:')) return [name, value];
      if (typeof value !== 'string' || !/^[A-Za-z0-9+/]*={0,2}$/.test(value)) {
        throw new InvalidInputError(`parameters["${name}"]: expected base64`);
      }
      return [name, Buffer.from(value, 'base64')];
    }),
  );
}
