// The logging extension: what the server logs, as clients read and set it.
import type { FastifyInstance } from 'fastify';
import {
  changeLogSettings,
  defaultLogSettings,
  type LogSettings,
} from '../protocol/v2/log-settings.js';
import type { InferBody } from '../server/http/body.js';

/** What is logged now: one for all the servers of a process that clients should see as one. */
export class Logging {
  #settings = defaultLogSettings();
  readonly #listeners: (() => void)[] = [];

  get settings(): Readonly<LogSettings> {
    return this.#settings;
  }

  /** Whether requests are logged. */
  get verbose(): boolean {
    return this.#settings.log_verbose_level > 0;
  }

  /** Throws InvalidInputError; then nothing changed. */
  change(changes: unknown): void {
    this.#settings = changeLogSettings(this.#settings, changes);
    for (const listener of this.#listeners) listener();
  }

  onChange(listener: () => void): void {
    this.#listeners.push(listener);
  }
}

/** Logs requests while the level says so. Before the routes that it concerns. */
export function logRequests(app: FastifyInstance, logging: Logging): void {
  app.addHook('onResponse', (request, reply, done) => {
    if (logging.verbose) {
      const ms = reply.elapsedTime.toFixed(1);
      console.log(`${request.method} ${request.url} ${reply.statusCode} ${ms} ms`);
    }
    done();
  });
}

export function addLoggingRoutes(app: FastifyInstance, logging: Logging): void {
  app.get('/v2/logging', () => logging.settings);
  app.post<{ Body: InferBody | undefined }>('/v2/logging', ({ body }) => {
    logging.change(body?.json?.value);
    return logging.settings;
  });
}
