// Infer requests of small bodies on connections that Node's HTTP server has, answered ahead of Fastify's
// router.
//
// Fastify's path costs 20 us a request and up (bench/http.ts). What it would do besides (hooks of the program's,
// its logger, compression, its error handler) is looked for first: where any of it is wanted, or anything is
// unusual, the request takes Fastify's path and nothing is lost but time.
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import type { TercelError } from '../../errors.js';
import type { InferPlan } from '../../protocol/v2/plan.js';
import { LeasePool } from '../../runtime/lease.js';
import { Exchange } from '../../serving/exchange.js';
import type { Target } from '../../serving/targets.js';
import type { Outcome } from '../../serving/interceptor.js';
import type { Values } from '../../types/servable.js';
import { errorAnswer, headersOf, inferAnswer, type HttpAnswer } from './answer.js';
import { Body } from './body.js';
import { runInfer, type FastPath } from './fast-path.js';
import { headerValues } from '../header-values.js';
import { HEADER_LENGTH } from './request-head.js';
import { SocketPeer } from './socket-peer.js';

/** Larger bodies go straight into a lease, chunk by chunk: Fastify's path does that. */
const MAX_BODY_BYTES = 64 * 1024;
/** Smaller answers go out with their headers. */
const ONE_WRITE_BYTES = 2048;

const whole = /^[0-9]{1,9}$/;

/** The requests that a socket waits for, so that they end when the client goes away; and who that is. */
const waiting = Symbol('waiting');
interface WaitingSocket extends Socket {
  [waiting]?: { readonly exchanges: Set<SmallExchange>; readonly peer: SocketPeer };
}

function onSocketClose(this: WaitingSocket): void {
  for (const exchange of this[waiting]!.exchanges) exchange.gone();
}

class SmallExchange extends Exchange {
  readonly #path: FastPath;
  readonly #request: IncomingMessage;
  readonly #response: ServerResponse;
  readonly #target: Target;

  constructor(
    path: FastPath,
    request: IncomingMessage,
    response: ServerResponse,
    target: Target,
    peer: SocketPeer,
  ) {
    const names = path.context.front.hooks('infer').headerNames;
    super(path.context, 'infer', peer, headerValues(request.headers, names));
    this.#path = path;
    this.#request = request;
    this.#response = response;
    this.#target = target;
  }

  get operation(): string {
    return `POST ${this.#request.url}`;
  }

  run(json: Buffer, binary: Uint8Array): void {
    this.bytesIn = json.length + binary.length;
    runInfer(this, this.#path.codec, this.#target, json, binary);
  }

  protected override write(values: Values): void {
    const { codec } = this.#path;
    const response = codec.write(this.plan as InferPlan, this.servable!, this.id, values);
    this.#send(inferAnswer(response, this.responseHeaders));
  }

  protected override writeError(error: TercelError): void {
    const response = this.#response;
    if (response.destroyed || response.headersSent) return;
    // What is left of a body that was refused is nobody's; it is short.
    this.#request.resume();
    this.#send(errorAnswer(error, this.responseHeaders));
  }

  protected override settle(outcome: Outcome): void {
    (this.#request.socket as WaitingSocket)[waiting]?.exchanges.delete(this);
    super.settle(outcome);
  }

  #send(answer: HttpAnswer): void {
    const { status, parts, bytes } = answer;
    const response = this.#response;
    this.bytesOut = bytes;
    if (response.destroyed) return;
    response.writeHead(status, headersOf(answer));
    if (bytes <= ONE_WRITE_BYTES) {
      // As a string it goes out with the headers in one write, where a buffer wants writev.
      let text = '';
      for (const { buffer, byteOffset, length } of parts) {
        text += Buffer.from(buffer, byteOffset, length).toString('latin1');
      }
      response.end(text, 'latin1');
      return;
    }
    response.cork();
    for (const part of parts) response.write(part);
    response.end();
    response.uncork();
  }
}

export class SmallBodyRoute {
  readonly #path: FastPath;
  readonly #maxBodyBytes: number;
  readonly #leases = new LeasePool();

  constructor(path: FastPath, bodyLimitBytes: number) {
    this.#path = path;
    this.#maxBodyBytes = Math.min(MAX_BODY_BYTES, bodyLimitBytes);
  }

  /** Takes the request, or says false and has not touched it. */
  take(request: IncomingMessage, response: ServerResponse): boolean {
    if (!this.#path.enabled || request.method !== 'POST') return false;
    const target = this.#path.target(request.url!);
    if (!target) return false;
    const { headers } = request;
    const length = headers['content-length'];
    const jsonLength = headers[HEADER_LENGTH] ?? length;
    if (
      length === undefined ||
      typeof jsonLength !== 'string' ||
      !whole.test(jsonLength) ||
      !whole.test(length) ||
      headers['accept-encoding'] !== undefined ||
      headers['content-encoding'] !== undefined ||
      headers.expect !== undefined
    ) {
      return false;
    }
    const jsonBytes = Number(jsonLength);
    const bytes = Number(length);
    if (jsonBytes === 0 || jsonBytes > bytes || bytes > this.#maxBodyBytes) return false;
    this.#path.requests++;
    const socket = request.socket as WaitingSocket;
    if (!socket[waiting]) {
      socket[waiting] = { exchanges: new Set(), peer: new SocketPeer(socket, this.#path) };
      socket.on('close', onSocketClose);
    }
    const { exchanges, peer } = socket[waiting];
    const exchange = new SmallExchange(this.#path, request, response, target, peer);
    exchanges.add(exchange);
    const entering = exchange.enter();
    if (!entering) this.#read(exchange, request, jsonBytes, bytes);
    else void entering.then(() => this.#read(exchange, request, jsonBytes, bytes));
    return true;
  }

  #read(exchange: SmallExchange, request: IncomingMessage, jsonBytes: number, bytes: number): void {
    if (exchange.settled) return;
    let body: Body;
    try {
      body = new Body({ jsonBytes, bytes }, this.#maxBodyBytes, this.#leases, false);
    } catch (error) {
      exchange.fail(error);
      return;
    }
    request.on('data', (chunk: Buffer) => body.add(chunk));
    request.on('end', () => {
      if (!exchange.settled) exchange.run(body.json, body.binary);
    });
  }
}
