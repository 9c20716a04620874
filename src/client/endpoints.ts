// The servers that a client may ask: keep-alive connections, failover, retries where they are safe.
import { Pool, type Dispatcher } from 'undici';
import { InvalidInputError, OverloadError, TercelError, TimeoutError } from '../errors.js';

export interface EndpointOptions {
  /** For a request and its retries together, in milliseconds. Default 60,000. */
  timeoutMs?: number;
  /** Tries after the first, of what may be tried again. Default 2. */
  retries?: number;
  /** Headers of every request, such as authorization. */
  headers?: Readonly<Record<string, string>>;
  /** Connections to each server. Default 64. */
  connections?: number;
  /** 'first': the first server that is well, in their order; 'spread': each in turn. Default 'first'. */
  strategy?: 'first' | 'spread';
}

export interface Asked {
  method: 'GET' | 'POST';
  path: string;
  headers?: Readonly<Record<string, string>>;
  body?: Uint8Array | readonly Uint8Array[];
  /** Whether asking twice is the same as asking once. */
  repeatable: boolean;
  timeoutMs?: number | undefined;
  signal?: AbortSignal | undefined;
}

export interface Answered {
  status: number;
  headers: Readonly<Record<string, string | string[] | undefined>>;
  body: Buffer;
}

/** A request that the server answered with an error. */
export class ResponseError extends TercelError {
  readonly status: number;

  constructor(status: number, message: string) {
    super(status === 503 ? 'OVERLOAD' : status < 500 ? 'INVALID_INPUT' : 'RUN', message);
    this.status = status;
  }
}
Object.defineProperty(ResponseError.prototype, 'name', { value: 'ResponseError' });

/** A server that failed is left alone so long, then twice as long, up to the last. */
const FIRST_REST_MS = 100;
const LAST_REST_MS = 10_000;
/** Between tries, the first time; doubled each time, with up to as much again at random. */
const FIRST_WAIT_MS = 20;

interface Endpoint {
  readonly url: string;
  readonly prefix: string;
  readonly pool: Pool;
  restMs: number;
  /** Not to be asked before, while others are there. */
  restUntil: number;
}

/** Whether the request cannot have reached the server. */
function neverArrived(error: unknown): boolean {
  const { code } = error as { code?: string };
  return ['ECONNREFUSED', 'ENOTFOUND', 'EHOSTUNREACH', 'UND_ERR_CONNECT_TIMEOUT'].includes(
    code ?? '',
  );
}

export class Endpoints {
  readonly #all: Endpoint[];
  readonly #options: Required<EndpointOptions>;
  #turn = 0;

  constructor(urls: readonly string[], options: EndpointOptions) {
    this.#options = {
      timeoutMs: 60_000,
      retries: 2,
      headers: {},
      connections: 64,
      strategy: 'first',
      ...options,
    };
    if (urls.length === 0) throw new InvalidInputError('client: expected the URL of a server');
    this.#all = urls.map((url) => {
      let parsed: URL;
      try {
        parsed = new URL(url);
      } catch (cause) {
        throw new InvalidInputError(`client: "${url}" is no URL`, { cause });
      }
      if (!['http:', 'https:'].includes(parsed.protocol)) {
        throw new InvalidInputError(`client: "${url}" is not http or https`);
      }
      const pool = new Pool(parsed.origin, { connections: this.#options.connections });
      const prefix = parsed.pathname.replace(/\/$/, '');
      return { url: parsed.origin + prefix, prefix, pool, restMs: 0, restUntil: 0 };
    });
  }

  get urls(): string[] {
    return this.#all.map(({ url }) => url);
  }

  /** Servers in the order to ask them: those that rest come last. */
  #order(): Endpoint[] {
    const now = performance.now();
    const start = this.#options.strategy === 'spread' ? this.#turn++ % this.#all.length : 0;
    const turned = [...this.#all.slice(start), ...this.#all.slice(0, start)];
    const well = turned.filter(({ restUntil }) => restUntil <= now);
    return [...well, ...turned.filter(({ restUntil }) => restUntil > now)];
  }

  /**
   * Asks a server; another one, or again, where the request did not arrive, the server is overloaded, or it
   * may be repeated and the connection broke.
   *
   * @throws (rejects) TimeoutError; the signal's reason; OverloadError when no server can be reached
   */
  async ask(request: Asked): Promise<Answered> {
    const timeoutMs = request.timeoutMs ?? this.#options.timeoutMs;
    const deadline = performance.now() + timeoutMs;
    const late = AbortSignal.timeout(Math.min(Math.ceil(timeoutMs), 0x7fffffff));
    const signal = request.signal ? AbortSignal.any([request.signal, late]) : late;
    let failure: unknown;
    for (let attempt = 0; attempt <= this.#options.retries; attempt++) {
      if (attempt > 0) await this.#wait(attempt, deadline);
      request.signal?.throwIfAborted();
      if (late.aborted || performance.now() >= deadline) throw tooLate(timeoutMs);
      const endpoint = this.#order()[0]!;
      try {
        const answer = await this.#once(endpoint, request, signal);
        const isLast = attempt === this.#options.retries;
        if (answer.status !== 503 || isLast) {
          if (answer.status !== 503) endpoint.restMs = endpoint.restUntil = 0;
          return answer;
        }
        this.#rest(endpoint);
        failure = undefined;
      } catch (error) {
        if (request.signal?.aborted) throw request.signal.reason;
        if (late.aborted) throw tooLate(timeoutMs);
        this.#rest(endpoint);
        failure = error;
        if (!neverArrived(error) && !request.repeatable) break;
      }
    }
    throw new OverloadError(
      `no answer from ${this.urls.join(' or ')}: ${(failure as Error | undefined)?.message ?? 'overloaded'}`,
      { cause: failure },
    );
  }

  #rest(endpoint: Endpoint): void {
    endpoint.restMs = Math.min(LAST_REST_MS, Math.max(FIRST_REST_MS, endpoint.restMs * 2));
    endpoint.restUntil = performance.now() + endpoint.restMs;
  }

  async #wait(attempt: number, deadline: number): Promise<void> {
    const now = performance.now();
    // Another server that is well is asked at once.
    if (this.#order()[0]!.restUntil <= now) return;
    const ms = FIRST_WAIT_MS * 2 ** (attempt - 1) * (1 + Math.random());
    await new Promise((resolve) => setTimeout(resolve, Math.min(ms, Math.max(0, deadline - now))));
  }

  async #once({ pool, prefix }: Endpoint, request: Asked, signal: AbortSignal): Promise<Answered> {
    const { method, path, headers, body } = request;
    const bytes =
      body === undefined || body instanceof Uint8Array
        ? body
        : body.length === 1
          ? body[0]!
          : Buffer.concat(body);
    const {
      statusCode,
      headers: got,
      body: stream,
    }: Dispatcher.ResponseData = await pool.request({
      method,
      path: prefix + path,
      headers: { ...this.#options.headers, ...headers },
      body: bytes ?? null,
      signal,
      headersTimeout: 0,
      bodyTimeout: 0,
    });
    return {
      status: statusCode,
      headers: got,
      body: Buffer.from(await stream.arrayBuffer()),
    };
  }

  /** Ends the connections; what is under way rejects. */
  async close(): Promise<void> {
    await Promise.all(this.#all.map(({ pool }) => pool.destroy()));
  }
}

function tooLate(timeoutMs: number): TimeoutError {
  return new TimeoutError(`no answer within ${timeoutMs} ms`);
}
