// Interceptors composed once: one function for each hook, of those that are switched on.
import { TimeoutError } from '../errors.js';
import { KINDS, type ExchangeInfo, type Interceptor, type Kind } from './interceptor.js';

/** What interceptors do for one kind of exchange; what nobody wants is undefined. */
export interface Hooks {
  /** Whether anybody wants times and rows: those who start or end. */
  readonly timed: boolean;
  /** Headers that they read, in lower case: exchanges have their values in this order. */
  readonly headerNames: readonly string[];
  readonly enter: ((exchange: ExchangeInfo) => Promise<void> | undefined) | undefined;
  readonly start: ((exchange: ExchangeInfo) => void) | undefined;
  readonly end: ((exchange: ExchangeInfo) => void) | undefined;
}

/** Every wait has a limit. */
const ENTER_LIMIT_MS = 30_000;

/** Interceptors that may come and go while servers run. */
export class Interceptors {
  readonly #list: Interceptor[] = [];
  readonly #listeners: (() => void)[] = [];

  get list(): readonly Interceptor[] {
    return this.#list;
  }

  /** These, and no others. */
  set(list: readonly Interceptor[]): void {
    this.#list.splice(0, Infinity, ...list);
    this.#tell();
  }

  /** Adds one, after those that are there; what is given takes it away again. */
  use(interceptor: Interceptor): () => void {
    this.#list.push(interceptor);
    this.#tell();
    return () => {
      const at = this.#list.indexOf(interceptor);
      if (at < 0) return;
      this.#list.splice(at, 1);
      this.#tell();
    };
  }

  onChange(listener: () => void): () => void {
    this.#listeners.push(listener);
    return () => {
      const at = this.#listeners.indexOf(listener);
      if (at >= 0) this.#listeners.splice(at, 1);
    };
  }

  #tell(): void {
    for (const listener of [...this.#listeners]) listener();
  }
}

/** What a server's exchanges pass: its own interceptors, then the program's. */
export class Front {
  #hooks!: Record<Kind, Hooks>;
  readonly #own: Interceptors;
  readonly #users: Interceptors;
  readonly #stop: (() => void)[];

  constructor(own: Interceptors, users: Interceptors) {
    this.#own = own;
    this.#users = users;
    this.#compose();
    this.#stop = [own, users].map((each) => each.onChange(() => this.#compose()));
  }

  hooks(kind: Kind): Hooks {
    return this.#hooks[kind];
  }

  /** Follows changes no more. */
  close(): void {
    for (const stop of this.#stop) stop();
  }

  #compose(): void {
    const all = [...this.#own.list, ...this.#users.list];
    this.#hooks = Object.fromEntries(
      KINDS.map((kind) => [
        kind,
        composed(all.filter(({ kinds }) => kinds?.includes(kind) ?? true)),
      ]),
    ) as Record<Kind, Hooks>;
  }
}

function composed(all: readonly Interceptor[]): Hooks {
  const enters = all.filter((each) => each.enter !== undefined);
  const starts = all.filter((each) => each.start !== undefined);
  const ends = all.filter((each) => each.end !== undefined);
  return {
    timed: starts.length + ends.length > 0,
    headerNames: [
      ...new Set(all.flatMap(({ headers = [] }) => headers.map((name) => name.toLowerCase()))),
    ],
    enter: enters.length === 0 ? undefined : (exchange) => enterFrom(enters, 0, exchange),
    start:
      starts.length === 0
        ? undefined
        : (exchange) => {
            for (let i = 0; i < starts.length; i++) starts[i]!.start!(exchange);
          },
    end:
      ends.length === 0
        ? undefined
        : (exchange) => {
            for (let i = 0; i < ends.length; i++) endOne(ends[i]!, exchange);
          },
  };
}

function enterFrom(
  enters: readonly Interceptor[],
  first: number,
  exchange: ExchangeInfo,
): Promise<void> | undefined {
  for (let i = first; i < enters.length; i++) {
    const waiting = enters[i]!.enter!(exchange);
    if (waiting) {
      return limited(enters[i]!, waiting).then(() => enterFrom(enters, i + 1, exchange));
    }
  }
  return undefined;
}

function limited({ name }: Interceptor, waiting: Promise<void>): Promise<void> {
  return new Promise((resolve, reject) => {
    const seconds = ENTER_LIMIT_MS / 1000;
    const timer = setTimeout(
      () => reject(new TimeoutError(`"${name}" did not let the request in within ${seconds} s`)),
      ENTER_LIMIT_MS,
    );
    const over = (then: () => void): void => {
      clearTimeout(timer);
      then();
    };
    Promise.resolve(waiting).then(
      () => over(resolve),
      (error: Error) => over(() => reject(error)),
    );
  });
}

function endOne(interceptor: Interceptor, exchange: ExchangeInfo): void {
  try {
    interceptor.end!(exchange);
  } catch (error) {
    console.error(`interceptor "${interceptor.name}": end failed:`, error);
  }
}
