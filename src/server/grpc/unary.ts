// Unary calls from bytes to bytes, answered below grpc-js: its call objects, interceptors and metadata cost
// a third of a call of a small model (bench/grpc.ts). A call that is not plain (compressed, a content type of
// its own, more than one message) is grpc-js's, before anything of it was read.
//
// Source: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
import type { EventEmitter } from 'node:events';
import type {
  IncomingHttpHeaders,
  OutgoingHttpHeaders,
  ServerHttp2Session,
  ServerHttp2Stream,
} from 'node:http2';
import type { Server } from '@grpc/grpc-js';
import { InvalidInputError, TercelError } from '../../errors.js';
import type { GrpcCodec } from '../../protocol/v2/grpc-codec.js';
import type { GrpcPlan } from '../../protocol/v2/grpc.js';
import { grpcStatusFor } from '../../serving/errors.js';
import { Exchange } from '../../serving/exchange.js';
import type { Peer } from '../../serving/peer.js';
import type { Values } from '../../types/servable.js';
import type { CallHost } from './call-exchange.js';
import { headerValues } from '../header-values.js';
import { runMessage } from './run-message.js';

/** A method that is answered here: how its messages are read and written. */
export type UnaryMethod = GrpcCodec;

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

/** When a call with the header must be over, by performance.now(); undefined for a header that is none. */
function deadlineOf(header: string | string[] | undefined): number | undefined {
  if (header === undefined) return Infinity;
  const match = typeof header === 'string' ? timeout.exec(header) : null;
  return match ? performance.now() + Number(match[1]) * unitMs[match[2]!]! : undefined;
}

function sendOkTrailers(this: ServerHttp2Stream): void {
  this.sendTrailers(okTrailers);
}

function ignore(): void {} // 'close' comes too

const peer = Symbol('peer');
type PeerSession = ServerHttp2Session & { [peer]?: Peer };

/** Of a session: one for all of its calls. */
function peerOf(session: PeerSession, host: CallHost): Peer {
  return (session[peer] ??= {
    address: session.socket.remoteAddress ?? '',
    get loopback() {
      return host.isLoopback;
    },
    tls: session.encrypted === true,
    inProcess: false,
  });
}

/** One call on its stream. */
class PlainCall extends Exchange {
  readonly #stream: ServerHttp2Stream;
  readonly #codec: GrpcCodec;
  readonly #limitBytes: number;
  readonly #path: string;

  constructor(
    host: CallHost,
    stream: ServerHttp2Stream,
    headers: IncomingHttpHeaders,
    codec: GrpcCodec,
    limitBytes: number,
  ) {
    const names = host.context.front.hooks('infer').headerNames;
    const peer = peerOf(stream.session as PeerSession, host);
    super(host.context, 'infer', peer, headerValues(headers, names));
    this.#stream = stream;
    this.#codec = codec;
    this.#limitBytes = limitBytes;
    this.#path = headers[':path']!;
  }

  get operation(): string {
    return this.#path;
  }

  run(message: Buffer): void {
    runMessage(this, this.#codec, message);
  }

  protected override write(values: Values): void {
    const response = this.#codec.write(this.plan as GrpcPlan, this.servable!, this.id, values);
    if (response.length > this.#limitBytes) {
      throw tooLarge('answer', response.length, this.#limitBytes);
    }
    this.bytesOut = response.length;
    const stream = this.#stream;
    if (stream.destroyed || stream.closed) return;
    stream.respond(withHeaders(this.responseHeaders), withTrailers);
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

  protected override writeError(error: TercelError): void {
    const stream = this.#stream;
    if (stream.destroyed || stream.closed) return;
    const { code, details } = grpcStatusFor(error);
    stream.respond(
      {
        ...withHeaders(this.responseHeaders),
        'grpc-status': String(code),
        'grpc-message': encodeURI(details),
      },
      { endStream: true },
    );
    // What is left of a message that was refused need not come. Node 22 resets a stream that is closed at
    // once without sending the answer first.
    if (!stream.readableEnded) setImmediate(() => stream.close());
  }

  /** The stream is gone: what was not answered ends. */
  readonly closed = (): void => this.gone();
}

function withHeaders(more: readonly string[] | undefined): OutgoingHttpHeaders {
  if (!more) return responseHeaders;
  const headers: OutgoingHttpHeaders = { ...responseHeaders };
  for (let i = 0; i < more.length; i += 2) {
    const name = more[i]!.toLowerCase();
    const before = headers[name];
    headers[name] = before === undefined ? more[i + 1]! : [before, more[i + 1]!].flat().map(String);
  }
  return headers;
}

function take(call: PlainCall, stream: ServerHttp2Stream, limitBytes: number): void {
  stream.on('error', ignore);
  stream.on('close', call.closed);
  const waiting = call.enter();
  if (!waiting) readMessage(call, stream, limitBytes);
  // Until then the window of the stream bounds what the client may send.
  else void waiting.then(() => readMessage(call, stream, limitBytes));
}

function readMessage(call: PlainCall, stream: ServerHttp2Stream, limitBytes: number): void {
  if (call.settled) return;
  // What has come, and nothing reserved for what is only announced.
  const chunks: Buffer[] = [];
  let filled = 0;
  let announced = -1;
  stream.on('data', (chunk: Buffer) => {
    if (call.settled) return;
    chunks.push(chunk);
    filled += chunk.length;
    if (announced < 0 && filled >= PREFIX_BYTES) announced = prefixOf(chunks).readUInt32BE(1);
    const bytes = Math.max(announced, filled - PREFIX_BYTES);
    if (bytes > limitBytes) call.fail(tooLarge('message', bytes, limitBytes));
  });
  stream.on('end', () => {
    if (call.settled) return;
    const body = chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks, filled);
    if (filled < PREFIX_BYTES || body[0] !== 0) {
      call.fail(new InvalidInputError('the call has no message that is not compressed'));
    } else if (filled !== PREFIX_BYTES + announced) {
      const came = filled - PREFIX_BYTES;
      call.fail(
        new InvalidInputError(`the message has ${came} bytes, its prefix says ${announced}`),
      );
    } else {
      call.run(body.subarray(PREFIX_BYTES));
    }
  });
}

/** The first bytes of a message, however they came. */
function prefixOf(chunks: readonly Buffer[]): Buffer {
  return chunks[0]!.length >= PREFIX_BYTES ? chunks[0]! : Buffer.concat(chunks);
}

function tooLarge(what: string, bytes: number, limitBytes: number): TercelError {
  return new TercelError('TOO_LARGE', `the ${what} has ${bytes} bytes, the limit is ${limitBytes}`);
}

/**
 * Answers plain calls of some methods below grpc-js, on the servers that it listens with now. Where a
 * version of it keeps them elsewhere, nothing changes.
 *
 * @param methods by path
 */
export function answerBelow(
  host: CallHost,
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
      if (!isPlain) {
        theirs(stream, headers);
        return;
      }
      const call = new PlainCall(host, stream, headers, method!, limitBytes);
      call.deadlineAt = deadline;
      take(call, stream, limitBytes);
    });
  }
}

const hooked = new WeakSet<EventEmitter>();
