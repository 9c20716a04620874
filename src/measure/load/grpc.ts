// Calls of gRPC below any library: one message each way.
import http2 from 'node:http2';
import { InvalidInputError } from '../../errors.js';
import { unreachable, type ServerOptions } from './servers.js';

class GrpcError extends Error {
  constructor(
    readonly code: string,
    message: string,
  ) {
    super(message);
  }
}

/** A message as gRPC frames it: not compressed, its length, itself. */
export function frameOf(message: Uint8Array): Buffer {
  const head = Buffer.alloc(5);
  head.writeUInt32BE(message.length, 1);
  return Buffer.concat([head, message]);
}

export function unary(
  session: http2.ClientHttp2Session,
  { url, headers }: ServerOptions,
  path: string,
  message: Uint8Array,
): Promise<Uint8Array> {
  return send(session, url, path, headers, frameOf(message));
}

export function send(
  session: http2.ClientHttp2Session,
  url: URL,
  path: string,
  headers: Readonly<Record<string, string>>,
  frame: Buffer,
): Promise<Uint8Array> {
  return new Promise((resolve, reject) => {
    const stream = session.request({
      ':method': 'POST',
      ':path': path,
      'content-type': 'application/grpc',
      te: 'trailers',
      ...headers,
    });
    const chunks: Buffer[] = [];
    let status: string | undefined;
    let text = '';
    const take = (fields: http2.IncomingHttpHeaders): void => {
      if (fields['grpc-status'] !== undefined) {
        status = String(fields['grpc-status']);
        text = decodeURIComponent(String(fields['grpc-message'] ?? ''));
      }
    };
    stream.on('response', take);
    stream.on('trailers', take);
    stream.on('data', (chunk: Buffer) => chunks.push(chunk));
    stream.on('error', (cause) => reject(unreachable(url, cause)));
    stream.on('close', () => {
      if (status === '0') resolve(Buffer.concat(chunks).subarray(5));
      else if (status === undefined)
        reject(new GrpcError('connection broken', `${url.origin} hung up`));
      else reject(new GrpcError(`grpc-status ${status}`, text || `grpc-status ${status}`));
    });
    stream.end(frame);
  });
}

export function connect(url: URL): Promise<http2.ClientHttp2Session> {
  if (url.protocol !== 'http:') {
    throw new InvalidInputError(
      `${url.href}: a load goes over http, not ${url.protocol.slice(0, -1)}`,
    );
  }
  return new Promise((resolve, reject) => {
    const session = http2.connect(url.origin, { settings: { initialWindowSize: 16 << 20 } });
    session.once('connect', () => {
      session.setLocalWindowSize(16 << 20);
      resolve(session);
    });
    session.once('error', (cause) => reject(unreachable(url, cause)));
  });
}

export async function withSession<T>(
  { url }: ServerOptions,
  use: (session: http2.ClientHttp2Session) => Promise<T>,
): Promise<T> {
  const session = await connect(url);
  const timer = setTimeout(() => session.destroy(new Error('no answer within 10 s')), 10_000);
  try {
    return await use(session);
  } finally {
    clearTimeout(timer);
    session.destroy();
  }
}
