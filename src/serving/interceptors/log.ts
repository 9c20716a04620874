// The log of requests: a line each, while the log settings say so.
import { answerFor } from '../errors.js';
import type { Interceptor } from '../interceptor.js';

/** Lines go out together: a write for each would cost more than many requests do. */
const WRITE_EVERY_MS = 50;
const MAX_PENDING_CHARACTERS = 64 * 1024;

/** Lines for standard output, written together. */
class Lines {
  #pending = '';
  #timer: NodeJS.Timeout | undefined;
  #atExit = false;

  add(line: string): void {
    this.#pending += line;
    if (this.#pending.length >= MAX_PENDING_CHARACTERS) this.flush();
    else this.#timer ??= setTimeout(this.flush, WRITE_EVERY_MS).unref();
    if (this.#atExit) return;
    this.#atExit = true;
    process.on('exit', this.flush);
  }

  readonly flush = (): void => {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const text = this.#pending;
    this.#pending = '';
    if (text !== '') process.stdout.write(text);
  };
}

const lines = new Lines();

/** Writes what was logged and is not written yet. */
export const flushLog = lines.flush;

/** `POST /v2/models/m/infer 200 1.3 ms`, and why where it failed. */
export const logInterceptor: Interceptor = {
  name: 'log',
  end(exchange) {
    const { error, arrivedAt, writtenAt, operation } = exchange;
    const status = error ? answerFor(error).status : 200;
    const ms = (writtenAt - arrivedAt).toFixed(1);
    const why = error ? ` ${error.message.replace(/\s+/g, ' ').slice(0, 200)}` : '';
    lines.add(`${operation} ${status} ${ms} ms${why}\n`);
  },
};
