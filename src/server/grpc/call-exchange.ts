// Exchanges of calls that grpc-js brings.
import type {
  handleUnaryCall,
  Metadata,
  ServerUnaryCall,
  UntypedServiceImplementation,
} from '@grpc/grpc-js';
import { grpcStatusFor } from '../../serving/errors.js';
import { AwaitedExchange } from '../../serving/awaited-exchange.js';
import type { ExchangeContext } from '../../serving/exchange.js';
import type { Kind } from '../../serving/interceptor.js';
import type { Peer } from '../../serving/peer.js';
import { grpc } from './protos.js';

/** What calls of a service need of the server that they came to. */
export interface CallHost {
  readonly context: ExchangeContext;
  readonly isLoopback: boolean;
}

/** What exchanges need of a call, whatever its kind. */
export interface AnyCall {
  readonly metadata: Metadata;
  getPath(): string;
  getPeer(): string;
  getDeadline(): Date | number;
  sendMetadata(metadata: Metadata): void;
  on(event: 'cancelled', listener: () => void): unknown;
}

export function peerOf(call: AnyCall, { isLoopback }: CallHost): Peer {
  return {
    address: call.getPeer().replace(/:\d+$/, ''),
    loopback: isLoopback,
    tls: 'getAuthContext' in call && isSecure(call as { getAuthContext(): object }),
    inProcess: false,
  };
}

function isSecure(call: { getAuthContext(): object }): boolean {
  return 'transportSecurityType' in call.getAuthContext();
}

/** A deadline of gRPC by performance.now(). */
export function deadlineOf(call: AnyCall): number {
  const deadline = call.getDeadline();
  const epochMs = typeof deadline === 'number' ? deadline : deadline.getTime();
  return epochMs === Infinity ? Infinity : performance.now() + epochMs - Date.now();
}

export function metadataValues(
  metadata: Metadata,
  names: readonly string[],
): readonly (string | undefined)[] {
  return names.map((name) => metadata.get(name)[0]?.toString());
}

export class CallExchange extends AwaitedExchange {
  readonly #call: AnyCall;

  constructor(host: CallHost, kind: Kind, call: AnyCall) {
    const names = host.context.front.hooks(kind).headerNames;
    super(host.context, kind, peerOf(call, host), metadataValues(call.metadata, names));
    this.#call = call;
    this.deadlineAt = deadlineOf(call);
    call.on('cancelled', () => this.gone());
  }

  get operation(): string {
    return this.#call.getPath();
  }

  /** Sends the headers that interceptors set. */
  sendHeaders(): void {
    const { responseHeaders } = this;
    if (!responseHeaders) return;
    const metadata = new (grpc().Metadata)();
    for (let i = 0; i < responseHeaders.length; i += 2) {
      metadata.add(responseHeaders[i]!, responseHeaders[i + 1]!);
    }
    this.#call.sendMetadata(metadata);
  }
}

/** A method's implementation: a call's answer or error, from what `work` gives or throws. */
export function handler<Request, Response>(
  host: CallHost,
  kind: Kind,
  work: (request: Request, exchange: CallExchange) => Response | Promise<Response>,
): UntypedServiceImplementation[string] {
  const handle: handleUnaryCall<Request, Response> = (
    call: ServerUnaryCall<Request, Response>,
    callback,
  ) => {
    const exchange = new CallExchange(host, kind, call);
    exchange
      .perform(() => work(call.request, exchange))
      .then(
        (response) => {
          exchange.sendHeaders();
          callback(null, response);
        },
        (error: unknown) => {
          exchange.sendHeaders();
          callback(grpcStatusFor(error));
        },
      );
  };
  return handle as UntypedServiceImplementation[string];
}

export type Fields = Record<string, unknown>;
export type Method = (request: Fields, exchange: CallExchange) => object | Promise<object>;

/** Several methods of one kind. */
export function handlers(
  host: CallHost,
  kind: Kind,
  methods: Record<string, Method>,
): UntypedServiceImplementation {
  return Object.fromEntries(
    Object.entries(methods).map(([name, method]) => [
      name,
      handler<Fields, object>(host, kind, method),
    ]),
  );
}
