// The servers that a client may ask: keep-alive connections, failover, retries where they are safe.
import { Pool, type Dispatcher } from 'undici';
import {
  InvalidInputError,
  OverloadError,
  TercelError,
  TimeoutError,
  type ErrorCode,
} from '../errors.js';

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

const codes: Readonly<Record<number, ErrorCode>> = {
  404: 'NOT_FOUND',
  501: 'UNIMPLEMENTED',
  503: 'OVERLOAD',
  504: 'TIMEOUT',
};

/** A request that the server answered with an error. */
export class ResponseError extends TercelError {
  readonly status: number;

  constructor(status: number, message: string) {
    super(codes[status] ?? (status < 500 ? 'INVALID_INPUT' : 'RUN'), message);
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
    // Not a spread: an option that is there and undefined is none.
    this.#options = {
      timeoutMs: options.timeoutMs ?? 60_000,
      retries: options.retries ?? 2,
      headers: options.headers ?? {},
      connections: options.connections ?? 64,
      strategy: options.strategy ?? 'first',
    };
    const { timeoutMs, retries, connections } = this.#options;
    if (!(timeoutMs > 0)) {
      throw new InvalidInputError(`timeoutMs: expected more than 0, got ${timeoutMs}`);
    }
    for (const [name, value, least] of [
      ['retries', retries, 0],
      ['connections', connections, 1],
    ] as const) {
      if (!Number.isSafeInteger(value) || value < least) {
        throw new InvalidInputError(
          `${name}: expected a whole number of ${least} or more, got ${value}`,
        );
      }
    }
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

  /** The server to ask: one that is well, else the one whose rest ends first; those that were not tried first. */
  #next(start: number, tried: ReadonlySet<Endpoint>): Endpoint {
    const now = performance.now();
    const rank = (endpoint: Endpoint): number =>
      (tried.has(endpoint) ? 1e12 : 0) + Math.max(0, endpoint.restUntil - now);
    const turned = [...this.#all.slice(start), ...this.#all.slice(0, start)];
    return turned.reduce((best, endpoint) => (rank(endpoint) < rank(best) ? endpoint : best));
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
    const start = this.#options.strategy === 'spread' ? this.#turn++ % this.#all.length : 0;
    const tried = new Set<Endpoint>();
    let failure: unknown;
    for (let attempt = 0; attempt <= this.#options.retries; attempt++) {
      if (tried.size === this.#all.length) tried.clear();
      const endpoint = this.#next(start, tried);
      if (attempt > 0 && endpoint.restUntil > performance.now()) {
        const ms = FIRST_WAIT_MS * 2 ** (attempt - 1) * (1 + Math.random());
        await pause(Math.min(ms, deadline - performance.now()), signal);
      }
      request.signal?.throwIfAborted();
      if (late.aborted || performance.now() >= deadline) throw tooLate(timeoutMs);
      tried.add(endpoint);
      try {
        const answer = await this.#once(endpoint, request, signal);
        if (answer.status !== 503) {
          endpoint.restMs = endpoint.restUntil = 0;
          return answer;
        }
        this.#rest(endpoint);
        if (attempt === this.#options.retries) return answer;
      } catch (error) {
        if (request.signal?.aborted) throw request.signal.reason;
        // One that does not answer in time is not asked first again either.
        this.#rest(endpoint);
        if (late.aborted) throw tooLate(timeoutMs);
        failure = error;
        if (!neverArrived(error) && !request.repeatable) break;
      }
    }
    throw new OverloadError(
      `no answer from ${this.urls.join(' or ')}: ${(failure as Error | undefined)?.message ?? 'overloaded'}`,
      { cause: failure },
    );
  }

  /** Once for all the requests that fail at the same time. */
  #rest(endpoint: Endpoint): void {
    const now = performance.now();
    if (endpoint.restUntil > now) return;
    endpoint.restMs = Math.min(LAST_REST_MS, Math.max(FIRST_REST_MS, endpoint.restMs * 2));
    endpoint.restUntil = now + endpoint.restMs;
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

/** Ends early when the signal aborts. */
function pause(ms: number, signal: AbortSignal): Promise<void> {
  if (!(ms > 0) || signal.aborted) return Promise.resolve();
  return new Promise((resolve) => {
    const done = (): void => {
      clearTimeout(timer);
      signal.removeEventListener('abort', done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal.addEventListener('abort', done, { once: true });
  });
}

function tooLate(timeoutMs: number): TimeoutError {
  return new TimeoutError(`no answer within ${timeoutMs} ms`);
}
