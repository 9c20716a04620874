// Unary calls from bytes to bytes, answered below grpc-js: its call objects, interceptors and metadata cost
// a third of a call of a small model (bench/grpc.ts). A call that is not plain (compressed, a content type of
// its own, more than one message) is grpc-js's, before anything of it was read.
//
// Source: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
import type { EventEmitter } from 'node:events';
import type { IncomingHttpHeaders, ServerHttp2Stream } from 'node:http2';
import type { Server } from '@grpc/grpc-js';
import { grpcStatusFor, HttpError } from '../../serving/errors.js';

/** Where a call's answer goes: one of the two is called, once. */
export interface CallReply {
  answer(response: Buffer): void;
  fail(error: unknown): void;
}

/**
 * A method: starts, and says how to end what goes on; undefined when it is over already.
 *
 * @param deadline in milliseconds since 1970; Infinity: none
 */
export type UnaryMethod = (
  message: Buffer,
  deadline: number,
  reply: CallReply,
) => (() => void) | undefined;

const PREFIX_BYTES = 5;
const LONG_BYTES = 64 * 1024;
const plainType = /^application\/grpc(\+proto)?$/;
const timeout = /^(\d{1,8})([HMSmun])$/;
const unitMs: Readonly<Record<string, number>> = {
  H: 3_600_000,
  M: 60_000,
  S: 1000,
  m: 1,
  u: 1e-3,
  n: 1e-6,
};

const responseHeaders = {
  ':status': 200,
  'content-type': 'application/grpc+proto',
  'grpc-accept-encoding': 'identity,deflate,gzip',
};
const withTrailers = { waitForTrailers: true };
const okTrailers = { 'grpc-status': '0', 'grpc-message': 'OK' };

/** When a call with the header must be over; undefined for a header that is none. */
function deadlineOf(header: string | string[] | undefined): number | undefined {
  if (header === undefined) return Infinity;
  const match = typeof header === 'string' ? timeout.exec(header) : null;
  return match ? Date.now() + Number(match[1]) * unitMs[match[2]!]! : undefined;
}

function sendOkTrailers(this: ServerHttp2Stream): void {
  this.sendTrailers(okTrailers);
}

function ignore(): void {} // 'close' comes too

/** One call on its stream. */
class PlainCall implements CallReply {
  readonly #stream: ServerHttp2Stream;
  readonly #limitBytes: number;
  #over = false;
  end: (() => void) | undefined;

  constructor(stream: ServerHttp2Stream, limitBytes: number) {
    this.#stream = stream;
    this.#limitBytes = limitBytes;
  }

  get over(): boolean {
    return this.#over;
  }

  answer(response: Buffer): void {
    if (this.#over) return;
    if (response.length > this.#limitBytes) {
      this.fail(tooLarge('answer', response.length, this.#limitBytes));
      return;
    }
    this.#over = true;
    const stream = this.#stream;
    if (stream.destroyed || stream.closed) return;
    stream.respond(responseHeaders, withTrailers);
    stream.on('wantTrailers', sendOkTrailers);
    // A second write costs more than copying what is small.
    const isLong = response.length >= LONG_BYTES;
    const frame = Buffer.allocUnsafe(PREFIX_BYTES + (isLong ? 0 : response.length));
    frame[0] = 0;
    frame.writeUInt32BE(response.length, 1);
    if (isLong) {
      stream.write(frame);
      stream.end(response);
    } else {
      frame.set(response, PREFIX_BYTES);
      stream.end(frame);
    }
  }

  fail(error: unknown): void {
    if (this.#over) return;
    this.#over = true;
    const stream = this.#stream;
    if (stream.destroyed || stream.closed) return;
    const { code, details } = grpcStatusFor(error);
    stream.respond(
      { ...responseHeaders, 'grpc-status': String(code), 'grpc-message': encodeURI(details) },
      { endStream: true },
    );
    // What is left of a message that was refused need not come. Node 22 resets a stream that is closed at
    // once without sending the answer first.
    if (!stream.readableEnded) setImmediate(() => stream.close());
  }

  /** The stream is gone: what was not answered ends. */
  readonly closed = (): void => {
    if (this.#over) return;
    this.#over = true;
    this.end?.();
  };
}

function take(
  stream: ServerHttp2Stream,
  method: UnaryMethod,
  deadline: number,
  limitBytes: number,
): void {
  const call = new PlainCall(stream, limitBytes);
  // What has come, and nothing reserved for what is only announced.
  const chunks: Buffer[] = [];
  let filled = 0;
  let announced = -1;
  stream.on('error', ignore);
  stream.on('close', call.closed);
  stream.on('data', (chunk: Buffer) => {
    if (call.over) return;
    chunks.push(chunk);
    filled += chunk.length;
    if (announced < 0 && filled >= PREFIX_BYTES) announced = prefixOf(chunks).readUInt32BE(1);
    const bytes = Math.max(announced, filled - PREFIX_BYTES);
    if (bytes > limitBytes) call.fail(tooLarge('message', bytes, limitBytes));
  });
  stream.on('end', () => {
    if (call.over) return;
    try {
      const body = chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks, filled);
      if (filled < PREFIX_BYTES || body[0] !== 0) {
        throw new HttpError(400, 'the call has no message that is not compressed');
      }
      if (filled !== PREFIX_BYTES + announced) {
        const came = filled - PREFIX_BYTES;
        throw new HttpError(400, `the message has ${came} bytes, its prefix says ${announced}`);
      }
      call.end = method(body.subarray(PREFIX_BYTES), deadline, call);
    } catch (error) {
      call.fail(error);
    }
  });
}

/** The first bytes of a message, however they came. */
function prefixOf(chunks: readonly Buffer[]): Buffer {
  return chunks[0]!.length >= PREFIX_BYTES ? chunks[0]! : Buffer.concat(chunks);
}

function tooLarge(what: string, bytes: number, limitBytes: number): HttpError {
  return new HttpError(413, `the ${what} has ${bytes} bytes, the limit is ${limitBytes}`);
}

/**
 * Answers plain calls of some methods below grpc-js, on the servers that it listens with now. Where a
 * version of it keeps them elsewhere, nothing changes.
 *
 * @param methods by path
 */
export function answerBelow(
  transport: Server,
  methods: ReadonlyMap<string, UnaryMethod>,
  limitBytes: number,
): void {
  const { http2Servers } = transport as unknown as { http2Servers?: Map<EventEmitter, unknown> };
  for (const server of http2Servers?.keys() ?? []) {
    const [theirs, ...others] = server.listeners('stream') as ((
      stream: ServerHttp2Stream,
      headers: IncomingHttpHeaders,
    ) => void)[];
    if (!theirs || others.length > 0 || hooked.has(server)) continue;
    hooked.add(server);
    server.removeListener('stream', theirs);
    server.on('stream', (stream: ServerHttp2Stream, headers: IncomingHttpHeaders) => {
      const method = methods.get(headers[':path'] as string);
      const deadline = method && deadlineOf(headers['grpc-timeout']);
      const isPlain =
        deadline !== undefined &&
        headers[':method'] === 'POST' &&
        plainType.test(headers['content-type'] ?? '') &&
        (headers['grpc-encoding'] ?? 'identity') === 'identity';
      if (isPlain) take(stream, method!, deadline, limitBytes);
      else theirs(stream, headers);
    });
  }
}

const hooked = new WeakSet<EventEmitter>();
