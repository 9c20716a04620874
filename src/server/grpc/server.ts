// A gRPC server as such: addresses, limits, handlers, closing. What it serves is added to it.
import type {
  handleUnaryCall,
  Server,
  ServerUnaryCall,
  UntypedServiceImplementation,
} from '@grpc/grpc-js';
import { isLoopback, mayControl, type ControlOptions } from '../../serving/access.js';
import { grpcStatusFor } from '../../serving/errors.js';
import { answerBelow, type UnaryMethod } from './unary.js';
import { grpc, type ServiceDefinition } from './protos.js';

/** Limit on a message, in bytes, both ways, where none is given. */
export const DEFAULT_MESSAGE_LIMIT_BYTES = 64 * 1024 * 1024;

/** Listens nowhere at first; closing it leaves the engine open. Made by createGrpcServer() and others. */
export class GrpcServer {
  /** @internal */
  readonly transport: Server;
  readonly #addresses = new Set<string>();
  readonly #onClose: (() => void)[] = [];
  readonly #unary = new Map<string, UnaryMethod>();
  readonly #limitBytes: number;
  #open = true;

  /** @internal */
  constructor(messageLimitBytes: number = DEFAULT_MESSAGE_LIMIT_BYTES) {
    this.#limitBytes = messageLimitBytes;
    this.transport = new (grpc().Server)({
      'grpc.max_receive_message_length': messageLimitBytes,
      'grpc.max_send_message_length': messageLimitBytes,
      // Nobody looks at its counters here, and each call pays for them (bench/grpc.ts).
      'grpc.enable_channelz': 0,
    });
  }

  /** @internal */
  add(service: ServiceDefinition, handlers: UntypedServiceImplementation): void {
    this.transport.addService(service, handlers);
  }

  /**
   * A method that was added, answered below grpc-js where a call is plain.
   *
   * @internal
   */
  addUnary(path: string, method: UnaryMethod): void {
    this.#unary.set(path, method);
  }

  /** @internal */
  onClose(callback: () => void): void {
    this.#onClose.push(callback);
  }

  /** False from the call of close() on. */
  get open(): boolean {
    return this.#open;
  }

  /** Whether only this machine reaches it. */
  get isLoopback(): boolean {
    return [...this.#addresses].every(isLoopback);
  }

  /**
   * Throws for who may not control: for handlers().
   *
   * @internal
   */
  guard(options: ControlOptions): (call: ServerUnaryCall<Fields, object>) => void {
    return (call) =>
      mayControl(call.metadata.get('authorization')[0]?.toString(), this.isLoopback, options);
  }

  /**
   * Listens; more addresses may be added by calling it again.
   *
   * @returns the port
   * @throws (rejects) Error when the address cannot be had
   */
  listen({ host = '127.0.0.1', port }: { host?: string; port: number }): Promise<number> {
    const address = host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
    this.#addresses.add(host === 'localhost' ? '127.0.0.1' : host);
    return new Promise((resolve, reject) => {
      const insecure = grpc().ServerCredentials.createInsecure();
      this.transport.bindAsync(address, insecure, (error, bound) => {
        if (error) {
          const reason = error.message.replace(/^.*errors: \[(.*)\]$/, '$1');
          reject(new Error(`gRPC cannot listen at ${address}: ${reason}`, { cause: error }));
          return;
        }
        answerBelow(this.transport, this.#unary, this.#limitBytes);
        resolve(bound);
      });
    });
  }

  /** Takes no more calls, and waits for those under way. */
  close(): Promise<void> {
    this.#open = false;
    return new Promise((resolve) => {
      this.transport.tryShutdown(() => {
        for (const callback of this.#onClose) callback();
        resolve();
      });
    });
  }
}

export type Fields = Record<string, unknown>;
export type Method = (request: Fields) => object | Promise<object>;

/** A call's answer or error, from what `work` gives or throws. */
export function handler<Request, Response>(
  work: (call: ServerUnaryCall<Request, Response>) => Response | Promise<Response>,
): handleUnaryCall<unknown, unknown> {
  const handle: handleUnaryCall<Request, Response> = (call, callback) => {
    const answer = async (): Promise<Response> => work(call);
    answer().then(
      (response) => callback(null, response),
      (error: unknown) => callback(grpcStatusFor(error)),
    );
  };
  return handle as handleUnaryCall<unknown, unknown>;
}

/** Methods as handlers; `guard` throws for who may not call them. */
export function handlers(
  methods: Record<string, Method>,
  guard?: (call: ServerUnaryCall<Fields, object>) => void,
): UntypedServiceImplementation {
  return Object.fromEntries(
    Object.entries(methods).map(([name, method]) => [
      name,
      handler<Fields, object>((call) => {
        guard?.(call);
        return method(call.request);
      }),
    ]),
  );
}

/** Aborts when the client gives up. */
export function cancelledSignal(call: {
  on(event: 'cancelled', listener: () => void): unknown;
}): AbortSignal {
  const controller = new AbortController();
  call.on('cancelled', () => controller.abort(new Error('the client gave up')));
  return controller.signal;
}

/** Milliseconds that a call may take; undefined: as long as it likes. */
export function millisecondsLeft(call: { getDeadline(): Date | number }): number | undefined {
  const deadline = deadlineOf(call);
  return deadline === Infinity ? undefined : Math.max(deadline - Date.now(), 0.001);
}

/** In milliseconds since 1970; Infinity: none. */
export function deadlineOf(call: { getDeadline(): Date | number }): number {
  const deadline = call.getDeadline();
  return typeof deadline === 'number' ? deadline : deadline.getTime();
}
