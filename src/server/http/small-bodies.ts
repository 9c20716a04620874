// Infer requests of small bodies on connections that Node's HTTP server has, answered ahead of Fastify's
// router.
//
// Fastify's path costs 20 us a request and up (bench/http.ts). What it would do besides (hooks, logging,
// compression, its error handler) is looked for first: where any of it is wanted, or anything is unusual,
// the request takes Fastify's path and nothing is lost but time.
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import type { PlannedResponse } from '../../protocol/v2/plan.js';
import type { Burst } from '../../serving/burst.js';
import { answerFor } from '../../serving/errors.js';
import { cancel, type DirectInfer, type Reply, type Running } from '../../serving/exchange.js';
import { HEADER_LENGTH } from './request-head.js';

/** Larger bodies go straight into a lease, chunk by chunk: Fastify's path does that. */
const MAX_BODY_BYTES = 64 * 1024;
/** Smaller answers go out with their headers. */
const ONE_WRITE_BYTES = 2048;

const whole = /^[0-9]{1,9}$/;

/** The runs that a socket waits for, so that they end when the client goes away. */
const running = Symbol('running');
interface WaitingSocket extends Socket {
  [running]?: Set<Running>;
}

function onSocketClose(this: WaitingSocket): void {
  for (const run of this[running]!) cancel(run);
}

class HttpReply implements Reply {
  readonly #response: ServerResponse;
  readonly #socket: WaitingSocket;
  #running: Running | undefined;

  constructor(response: ServerResponse, socket: WaitingSocket) {
    this.#response = response;
    this.#socket = socket;
  }

  /** The run goes on: it ends with the socket. */
  await(run: Running): void {
    const socket = this.#socket;
    this.#running = run;
    if (!socket[running]) {
      socket[running] = new Set();
      socket.on('close', onSocketClose);
    }
    socket[running].add(run);
  }

  answer(planned: PlannedResponse): void {
    this.#over();
    if (!this.#response.destroyed) answer(this.#response, planned);
  }

  fail(error: unknown): void {
    this.#over();
    const response = this.#response;
    if (response.destroyed || response.headersSent) return;
    const { status, message } = answerFor(error);
    const body = JSON.stringify({ error: message });
    response.writeHead(status, {
      'content-type': 'application/json; charset=utf-8',
      'content-length': Buffer.byteLength(body),
    });
    response.end(body);
  }

  #over(): void {
    if (this.#running) this.#socket[running]!.delete(this.#running);
  }
}

export class SmallBodyRoute {
  readonly #infer: DirectInfer;
  readonly #burst: Burst;
  readonly #maxBodyBytes: number;

  constructor(infer: DirectInfer, burst: Burst, bodyLimitBytes: number) {
    this.#infer = infer;
    this.#burst = burst;
    this.#maxBodyBytes = Math.min(MAX_BODY_BYTES, bodyLimitBytes);
  }

  /** Takes the request, or says false and has not touched it. */
  take(request: IncomingMessage, response: ServerResponse): boolean {
    if (!this.#infer.enabled || request.method !== 'POST') return false;
    const target = this.#infer.target(request.url!);
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
    if (!this.#infer.serves(target)) return false;
    const concurrent = this.#burst.count();
    let body: Buffer | undefined;
    request.on('data', (chunk: Buffer) => {
      body = body ? Buffer.concat([body, chunk]) : chunk;
    });
    request.on('end', () => {
      const reply = new HttpReply(response, request.socket);
      const json = body!.subarray(0, jsonBytes);
      const run = this.#infer.start(target, json, body!.subarray(jsonBytes), concurrent, reply);
      if (run) reply.await(run);
    });
    return true;
  }
}

function answer(response: ServerResponse, { head, binary }: PlannedResponse): void {
  let total = head.length;
  for (const part of binary) total += part.length;
  response.writeHead(200, [
    'content-type',
    binary.length > 0 ? 'application/octet-stream' : 'application/json; charset=utf-8',
    ...(binary.length > 0 ? [HEADER_LENGTH, String(head.length)] : []),
    'content-length',
    String(total),
  ]);
  if (total <= ONE_WRITE_BYTES) {
    // As a string it goes out with the headers in one write, where a buffer wants writev.
    let text = head.toString('latin1');
    for (const { buffer, byteOffset, length } of binary) {
      text += Buffer.from(buffer, byteOffset, length).toString('latin1');
    }
    response.end(text, 'latin1');
    return;
  }
  response.cork();
  response.write(head);
  for (const part of binary) response.write(part);
  response.end();
  response.uncork();
}
