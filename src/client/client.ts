// A client of the Open Inference Protocol v2: Tercel's server, Triton, KServe.
import { InvalidInputError } from '../errors.js';
import type { Tensor } from '../tensor.js';
import {
  decodeResponse,
  encodeRequest,
  type EncodedRequest,
  type InferResult,
  type OutputRequest,
} from './codec.js';
import { Endpoints, ResponseError, type Answered, type EndpointOptions } from './endpoints.js';
import { SharedRegion } from './shared-region.js';

/** What `tercel client types` writes: inputs and outputs of each model by name. */
export type ModelTypes = Record<
  string,
  { inputs: Record<string, Tensor>; outputs: Record<string, Tensor> }
>;

export interface ClientOptions extends EndpointOptions {
  /** Tensors as bytes behind the JSON; else as JSON numbers. Default true. */
  binary?: boolean;
  /**
   * Large inputs go through system shared memory: for one server, on this machine, that allows it. true:
   * an error where it cannot be; 'auto': sent instead. Default false.
   */
  sharedMemory?: boolean | 'auto';
  /** Of shared memory, in bytes: what is under way at once and does not fit is sent. Default 64 MiB. */
  sharedMemoryBytes?: number;
}

export interface ClientInferOptions<Outputs extends string = string> {
  version?: string;
  /** Names, or how each is wanted. Default: all. */
  outputs?: readonly Outputs[] | Readonly<Partial<Record<Outputs, OutputRequest>>>;
  id?: string;
  /** 1 is first. */
  priority?: number;
  /** How long the request may wait and run on the server, in milliseconds. */
  serverTimeoutMs?: number;
  /** For the answer, in milliseconds; default the client's. */
  timeoutMs?: number;
  signal?: AbortSignal;
  /** Any others of the protocol. */
  parameters?: Readonly<Record<string, unknown>>;
}

export interface TensorMetadata {
  name: string;
  datatype: string;
  /** -1 for dynamic dimensions. */
  shape: number[];
}

export interface ModelMetadata {
  name: string;
  versions?: string[];
  platform: string;
  inputs: TensorMetadata[];
  outputs: TensorMetadata[];
}

export interface RepositoryEntry {
  name: string;
  version?: string;
  state?: string;
  reason?: string;
}

interface Limits {
  timeoutMs: number | undefined;
  signal: AbortSignal | undefined;
}

/** Smaller tensors are quicker sent. */
const SHARED_FROM_BYTES = 64 * 1024;
const DEFAULT_SHARED_BYTES = 64 * 1024 * 1024;

function isLoopback(url: string): boolean {
  const { hostname } = new URL(url);
  return hostname === 'localhost' || hostname === '[::1]' || /^127(\.\d+){3}$/.test(hostname);
}

/**
 * Models of one or several servers that serve the same.
 *
 * ```ts
 * const client = new Client<Models>('http://127.0.0.1:8000');
 * const { digit } = await client.infer('digits', { image });
 * ```
 */
export class Client<Models extends ModelTypes = ModelTypes> {
  readonly #endpoints: Endpoints;
  readonly #binary: boolean;
  readonly #shared: boolean | 'auto';
  readonly #sharedBytes: number;
  #region: Promise<SharedRegion | undefined> | undefined;

  /**
   * @param urls of the servers, such as 'http://127.0.0.1:8000'
   * @throws InvalidInputError for what is no URL
   */
  constructor(urls: string | readonly string[], options: ClientOptions = {}) {
    const { binary = true, sharedMemory = false, sharedMemoryBytes, ...endpoints } = options;
    this.#endpoints = new Endpoints(typeof urls === 'string' ? [urls] : urls, endpoints);
    this.#binary = binary;
    this.#shared = sharedMemory;
    this.#sharedBytes = sharedMemoryBytes ?? DEFAULT_SHARED_BYTES;
    const { urls: all } = this.#endpoints;
    const fits = all.length === 1 && isLoopback(all[0]!) && process.platform === 'linux';
    if (!fits && sharedMemory === true) {
      throw new InvalidInputError('sharedMemory: needs one server, on this machine, and Linux');
    }
    if (!fits) this.#shared = false;
  }

  /**
   * Runs a model.
   *
   * @throws (rejects) ResponseError with the server's status and message; TimeoutError; OverloadError when
   *   no server can be reached; InvalidInputError for data that does not fit its shape; the signal's reason
   */
  async infer<M extends keyof Models & string, O extends keyof Models[M]['outputs'] & string>(
    model: M,
    inputs: Models[M]['inputs'],
    options: ClientInferOptions<O> = {},
  ): Promise<Pick<Models[M]['outputs'], O>> {
    return (await this.inferResult(model, inputs, options)).outputs;
  }

  /** As infer(), with the version that answered and the request's id. */
  async inferResult<M extends keyof Models & string, O extends keyof Models[M]['outputs'] & string>(
    model: M,
    inputs: Models[M]['inputs'],
    options: ClientInferOptions<O> = {},
  ): Promise<InferResult<Pick<Models[M]['outputs'], O>>> {
    const { outputs, version, timeoutMs, signal, ...rest } = options;
    signal?.throwIfAborted();
    const wanted = Array.isArray(outputs)
      ? Object.fromEntries((outputs as readonly O[]).map((name) => [name, {}]))
      : (outputs as Record<string, OutputRequest> | undefined);
    const limits = { timeoutMs, signal };
    const isLarge = Object.values(inputs).some(
      ({ data }) => ArrayBuffer.isView(data) && data.byteLength >= SHARED_FROM_BYTES,
    );
    const shared = this.#shared && isLarge ? await this.#openRegion(limits) : undefined;
    const send = async (region: SharedRegion | undefined): Promise<Answered> => {
      const held: { offset: number; bytes: number }[] = [];
      try {
        const request = encodeRequest(inputs, {
          ...rest,
          outputs: wanted,
          binary: this.#binary,
          spanOf:
            region &&
            ((_name, bytes) => {
              if (bytes.length < SHARED_FROM_BYTES) return undefined;
              const offset = region.put(bytes);
              if (offset === undefined) return undefined;
              held.push({ offset, bytes: bytes.length });
              return { region: region.name, offset };
            }),
        });
        return await this.#post(`${modelPath(model, version)}/infer`, request, {
          repeatable: true,
          ...limits,
        });
      } finally {
        for (const { offset, bytes } of held) region!.release(offset, bytes);
      }
    };
    let answer: Answered;
    try {
      answer = await send(shared);
    } catch (error) {
      // A server that was started anew knows nothing of it: this one is sent, the next one registers again.
      if (!shared || !isForgotten(error)) throw error;
      this.#dropRegion(shared);
      answer = await send(undefined);
    }
    const length = answer.headers['inference-header-content-length'];
    const jsonBytes = length === undefined ? undefined : Number(length);
    return decodeResponse(answer.body, jsonBytes) as InferResult<Pick<Models[M]['outputs'], O>>;
  }

  #post(
    path: string,
    { parts, jsonBytes }: EncodedRequest,
    limits: { repeatable: boolean; timeoutMs: number | undefined; signal: AbortSignal | undefined },
  ): Promise<Answered> {
    const headers: Record<string, string> =
      jsonBytes === undefined
        ? { 'content-type': 'application/json' }
        : {
            'content-type': 'application/octet-stream',
            'inference-header-content-length': String(jsonBytes),
          };
    return this.#ask({ method: 'POST', path, headers, body: parts, ...limits });
  }

  async #ask(request: Parameters<Endpoints['ask']>[0]): Promise<Answered> {
    const answer = await this.#endpoints.ask(request);
    if (answer.status < 400) return answer;
    const text = answer.body.toString();
    let message = text;
    try {
      message = (JSON.parse(text) as { error?: string }).error ?? text;
    } catch {
      // A proxy's page, perhaps: as it is.
    }
    throw new ResponseError(answer.status, message || `status ${answer.status}`);
  }

  async #json<T>(
    method: 'GET' | 'POST',
    path: string,
    body?: object,
    limits: Partial<Limits> = {},
  ): Promise<T> {
    const answer = await this.#ask({
      method,
      path,
      ...(body && {
        body: Buffer.from(JSON.stringify(body)),
        headers: { 'content-type': 'application/json' },
      }),
      repeatable: method === 'GET',
      ...limits,
    });
    return (answer.body.length > 0 ? JSON.parse(answer.body.toString()) : {}) as T;
  }

  /** The region, made and registered at the first need; undefined where it cannot be. */
  #openRegion(limits: Limits): Promise<SharedRegion | undefined> {
    if (this.#region) return this.#region;
    const opening = (async () => {
      let region: SharedRegion | undefined;
      try {
        region = new SharedRegion(this.#sharedBytes);
        await this.#json(
          'POST',
          `/v2/systemsharedmemory/region/${region.name}/register`,
          { key: `/${region.name}`, offset: 0, byte_size: region.bytes },
          limits,
        );
        region.unlink(); // the server has it mapped
        return region;
      } catch (error) {
        region?.close();
        // A server that said no is not asked again; one that could not be reached is.
        const isFinal = error instanceof ResponseError && error.status < 500;
        if (!isFinal || this.#shared === true) this.#region = undefined;
        if (this.#shared === true) throw error;
        return undefined;
      }
    })();
    this.#region = opening;
    return opening;
  }

  #dropRegion(region: SharedRegion): void {
    region.close();
    this.#region = undefined;
  }

  async #isWell(path: string): Promise<boolean> {
    try {
      await this.#ask({ method: 'GET', path, repeatable: true });
      return true;
    } catch (error) {
      if (error instanceof ResponseError) return false;
      throw error;
    }
  }

  /** Whether the server answers. */
  live(): Promise<boolean> {
    return this.#isWell('/v2/health/live');
  }

  /** Whether the server's models are ready. */
  ready(): Promise<boolean> {
    return this.#isWell('/v2/health/ready');
  }

  modelReady(model: keyof Models & string, version?: string): Promise<boolean> {
    return this.#isWell(`${modelPath(model, version)}/ready`);
  }

  serverMetadata(): Promise<{ name: string; version: string; extensions?: string[] }> {
    return this.#json('GET', '/v2');
  }

  metadata(model: keyof Models & string, version?: string): Promise<ModelMetadata> {
    return this.#json('GET', modelPath(model, version));
  }

  /** Triton's ModelConfig. */
  config(model: keyof Models & string, version?: string): Promise<Record<string, unknown>> {
    return this.#json('GET', `${modelPath(model, version)}/config`);
  }

  /** Of a model, or of all. */
  statistics(model?: keyof Models & string, version?: string): Promise<Record<string, unknown>> {
    const path = model === undefined ? '/v2/models' : modelPath(model, version);
    return this.#json('GET', `${path}/stats`);
  }

  /** The repository's models. */
  index(ready = false): Promise<RepositoryEntry[]> {
    return this.#json('POST', '/v2/repository/index', { ready });
  }

  /** Loads a model, or loads it again; with a configuration and files of its own where they are given. */
  async load(
    model: string,
    override: { config?: object | string; files?: Readonly<Record<string, Uint8Array>> } = {},
  ): Promise<void> {
    const { config, files = {} } = override;
    const parameters = {
      ...(config !== undefined && {
        config: typeof config === 'string' ? config : JSON.stringify(config),
      }),
      ...Object.fromEntries(
        Object.entries(files).map(([path, bytes]) => [
          `file:${path}`,
          Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('base64'),
        ]),
      ),
    };
    await this.#json('POST', `/v2/repository/models/${encodeURIComponent(model)}/load`, {
      parameters,
    });
  }

  async unload(model: string): Promise<void> {
    await this.#json('POST', `/v2/repository/models/${encodeURIComponent(model)}/unload`, {});
  }

  /** Ends connections, and gives shared memory back. */
  async close(): Promise<void> {
    const region = await this.#region?.catch(() => undefined);
    if (region) {
      await this.#json('POST', `/v2/systemsharedmemory/region/${region.name}/unregister`).catch(
        () => undefined, // the server may be gone
      );
      region.close();
    }
    await this.#endpoints.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/** Whether the server does not know the region (any more). */
function isForgotten(error: unknown): boolean {
  return error instanceof ResponseError && /shared memory region .*regist/i.test(error.message);
}

function modelPath(model: string, version?: string): string {
  const path = `/v2/models/${encodeURIComponent(model)}`;
  return version === undefined ? path : `${path}/versions/${encodeURIComponent(version)}`;
}
