// A gRPC server as such: addresses, limits, closing. What it serves is added to it.
import type { Server, ServerCredentials, UntypedServiceImplementation } from '@grpc/grpc-js';
import type { ExchangeContext } from '../../serving/exchange.js';
import { isLoopback } from '../../serving/peer.js';
import type { CallHost } from './call-exchange.js';
import { grpc, type ServiceDefinition } from './protos.js';
import { answerBelow, type UnaryMethod } from './unary.js';

/** Limit on a message, in bytes, both ways, where none is given. */
export const DEFAULT_MESSAGE_LIMIT_BYTES = 64 * 1024 * 1024;

/** Listens nowhere at first; closing it leaves the engine open. Made by createGrpcServer() and others. */
export class GrpcServer implements CallHost {
  /** @internal */
  readonly transport: Server;
  readonly #addresses = new Set<string>();
  /** What its calls pass. @internal */
  readonly context: ExchangeContext;
  readonly #onClosing: (() => void)[] = [];
  readonly #onClose: (() => void)[] = [];
  readonly #unary = new Map<string, UnaryMethod>();
  readonly #limitBytes: number;
  #open = true;

  /** @internal */
  constructor(context: ExchangeContext, messageLimitBytes: number = DEFAULT_MESSAGE_LIMIT_BYTES) {
    this.context = context;
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

  /** When close() is called. @internal */
  onClosing(callback: () => void): void {
    this.#onClosing.push(callback);
  }

  /** When nothing is under way any more. @internal */
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
   * Listens; more addresses may be added by calling it again.
   *
   * @param address a host and port, or the path of a Unix socket; `credentials` of grpc-js where the listener
   *   is to be one of TLS
   * @returns the port; 0 for a Unix socket
   * @throws (rejects) Error when the address cannot be had
   */
  listen({
    host = '127.0.0.1',
    port = 0,
    path,
    credentials = grpc().ServerCredentials.createInsecure(),
  }: {
    host?: string;
    port?: number;
    path?: string;
    credentials?: ServerCredentials;
  }): Promise<number> {
    const address =
      path !== undefined
        ? `unix:${path}`
        : host.includes(':')
          ? `[${host}]:${port}`
          : `${host}:${port}`;
    this.#addresses.add(path !== undefined || host === 'localhost' ? '127.0.0.1' : host);
    return new Promise((resolve, reject) => {
      this.transport.bindAsync(address, credentials, (error, bound) => {
        if (error) {
          const reason = error.message.replace(/^.*errors: \[(.*)\]$/, '$1');
          reject(new Error(`gRPC cannot listen at ${address}: ${reason}`, { cause: error }));
          return;
        }
        answerBelow(this, this.transport, this.#unary, this.#limitBytes);
        resolve(path === undefined ? bound : 0);
      });
    });
  }

  /** Takes no more calls, and waits for those under way. */
  close(): Promise<void> {
    this.#open = false;
    for (const callback of this.#onClosing) callback();
    return new Promise((resolve) => {
      this.transport.tryShutdown(() => {
        for (const callback of this.#onClose) callback();
        resolve();
      });
    });
  }
}
