// Loads on HTTP servers, by the native generator: native/load/http_load.h.
import { InvalidInputError } from '../../errors.js';
import { Histogram } from './histogram.js';
import { httpLoad } from './native-load.js';
import type { Subject, Window, WindowResult } from './load.js';

/** Sleeping threads wake so late here that a request would be; the last part of a wait is spent looking. */
const SPIN_NS = 60_000;
/** Connections of an open loop, unless told: more than any of these servers runs at once. */
const OPEN_CONNECTIONS = 128;
const STOP = 2;

/** A request as it goes over the wire. */
export interface HttpRequest {
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: readonly Uint8Array[];
}

function wholeRequest(url: URL, { path, headers, body }: HttpRequest): Uint8Array {
  const bytes = body.reduce((sum, part) => sum + part.length, 0);
  const lines = [
    `${bytes > 0 ? 'POST' : 'GET'} ${path} HTTP/1.1`,
    `host: ${url.host}`,
    ...Object.entries(headers).map(([name, value]) => `${name}: ${value}`),
    ...(bytes > 0 ? [`content-length: ${bytes}`] : []),
  ];
  return Buffer.concat([Buffer.from(`${lines.join('\r\n')}\r\n\r\n`, 'latin1'), ...body]);
}

/** An HTTP server as something that a load can be put on. */
export class HttpSubject implements Subject {
  readonly #host: string;
  readonly #port: number;
  readonly #requests: Uint8Array[];
  readonly #openConnections: number;

  /**
   * @param url of the server; http only
   * @param requests sent in turns, without a body by GET
   * @param openConnections that an open loop has
   */
  constructor(url: URL, requests: readonly HttpRequest[], openConnections = OPEN_CONNECTIONS) {
    if (url.protocol !== 'http:') {
      throw new InvalidInputError(
        `${url.href}: a load goes over http, not ${url.protocol.slice(0, -1)}`,
      );
    }
    this.#host = url.hostname.replace(/^\[|\]$/g, '');
    this.#port = Number(url.port || 80);
    this.#requests = requests.map((request) => wholeRequest(url, request));
    this.#openConnections = openConnections;
  }

  /** @throws (rejects) ModelError when the server cannot be reached */
  async run({ arrivals, durationMs, drainMs, seed, signal }: Window): Promise<WindowResult> {
    signal.throwIfAborted();
    const progress = new Int32Array(3);
    const latency = new Histogram();
    const service = new Histogram();
    const onAbort = (): void => {
      Atomics.store(progress, STOP, 1);
    };
    signal.addEventListener('abort', onAbort);
    const isOpen = arrivals.kind !== 'closed';
    try {
      const result = await httpLoad(
        {
          host: this.#host,
          port: this.#port,
          requests: this.#requests,
          connections: isOpen ? this.#openConnections : arrivals.concurrency,
          rate: isOpen ? arrivals.rate : 0,
          poisson: arrivals.kind === 'poisson',
          seed,
          durationNs: Math.round(durationMs * 1e6),
          drainNs: Math.round(drainMs * 1e6),
          spinNs: SPIN_NS,
        },
        progress,
        latency.counts,
        service.counts,
      );
      latency.maxNs = result.maxNs;
      const errors: Record<string, number> = {};
      for (const [status, count] of Object.entries(result.statuses))
        errors[`HTTP ${status}`] = count;
      if (result.broken > 0) errors['connection broken'] = result.broken;
      return {
        latency,
        completed: result.completed,
        perSecond: result.perSecond,
        errors,
        firstError: result.firstError,
        unsent: result.unsent,
        unanswered: result.unanswered,
        startMs: result.startNs / 1e6,
        elapsedMs: result.elapsedNs / 1e6,
        cpuMs: result.cpuNs / 1e6,
        lateMs: result.lateNs / 1e6,
        gone: result.gone,
      };
    } finally {
      signal.removeEventListener('abort', onAbort);
    }
  }

  async close(): Promise<void> {}
}
