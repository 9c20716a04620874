// Servers of the protocols that we speak, ours or not, as something that a load can be put on.
import http2 from 'node:http2';
import { encodeRequest } from '../../client/codec.js';
import { InvalidInputError, ModelError } from '../../errors.js';
import { ProtoReader, ProtoWriter } from '../../protobuf.js';
import { tensorProto } from '../../protocol/tfs/grpc.js';
import { tfTypes } from '../../protocol/tfs/describe.js';
import { bytesOf, datatypeOf, dtypeOfName } from '../../protocol/v2/datatypes.js';
import type { DType, Tensor } from '../../tensor.js';
import { CallSubject } from './call-load.js';
import { HttpSubject } from './http-load.js';
import type { InputSpec } from './inputs.js';
import type { Subject } from './load.js';

export const protocols = ['oip-http', 'oip-grpc', 'tfs-http', 'tfs-grpc'] as const;
export type Protocol = (typeof protocols)[number];

export interface ServerOptions {
  readonly url: URL;
  readonly protocol: Protocol;
  readonly model: string;
  readonly version?: string | undefined;
  /** oip-http: numbers in JSON rather than behind it. */
  readonly json: boolean;
  readonly headers: Readonly<Record<string, string>>;
  /** HTTP connections of an open loop. */
  readonly connections?: number | undefined;
}

/** The part of errors that says that nobody is there. */
function unreachable(url: URL, cause: unknown): ModelError {
  const { cause: inner, message, code } = cause as Error & { code?: string };
  const reason = (inner as Error | undefined)?.message || message || code;
  return new ModelError(`cannot reach ${url.origin}: ${String(reason)}`, { cause });
}

async function getJson(
  url: URL,
  path: string,
  headers: Readonly<Record<string, string>>,
): Promise<unknown> {
  let answer: Response;
  let text: string;
  try {
    answer = await fetch(new URL(path, url), { headers, signal: AbortSignal.timeout(10_000) });
    text = await answer.text();
  } catch (cause) {
    throw unreachable(url, cause);
  }
  if (!answer.ok) {
    throw new InvalidInputError(
      `${url.origin}${path} answered ${answer.status}: ${text.slice(0, 300)}`,
    );
  }
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new InvalidInputError(`${url.origin}${path} answered no JSON: ${text.slice(0, 100)}`, {
      cause,
    });
  }
}

function oipSpec({
  name,
  datatype,
  shape,
}: {
  name: string;
  datatype: string;
  shape: (number | string)[];
}): InputSpec {
  // A shape in JSON may have its 64-bit numbers as strings, and has -1 where a dimension is dynamic.
  return {
    name,
    dtype: dtypeOfName(datatype, `input "${name}"`),
    shape: shape.map(Number),
  };
}

interface TfInfo {
  dtype?: string;
  tensor_shape?: { dim?: { size?: string | number }[] };
}

function tfDType(name: string, type: string | number): DType {
  const found = Object.entries(tfTypes).find(([, known]) => known.includes(type as never));
  if (!found) throw new InvalidInputError(`input "${name}": no tensors of ${type}`);
  return found[0] as DType;
}

const pathOf = (model: string, version: string | undefined): string =>
  encodeURIComponent(model) +
  (version === undefined ? '' : `/versions/${encodeURIComponent(version)}`);

/** What a model takes, as the server says. */
export async function describeInputs(options: ServerOptions): Promise<InputSpec[]> {
  const { url, protocol, model, version, headers } = options;
  const path = pathOf(model, version);
  switch (protocol) {
    case 'oip-http': {
      const metadata = (await getJson(url, `/v2/models/${path}`, headers)) as {
        inputs: Parameters<typeof oipSpec>[0][];
      };
      return metadata.inputs.map(oipSpec);
    }
    case 'tfs-http': {
      const answer = (await getJson(url, `/v1/models/${path}/metadata`, headers)) as {
        metadata: {
          signature_def: { signature_def: Record<string, { inputs: Record<string, TfInfo> }> };
        };
      };
      const signature = answer.metadata.signature_def.signature_def['serving_default'];
      if (!signature)
        throw new InvalidInputError(`model "${model}" has no signature serving_default`);
      return Object.entries(signature.inputs).map(([name, info]) => ({
        name,
        dtype: tfDType(name, info.dtype ?? ''),
        shape: (info.tensor_shape?.dim ?? []).map(({ size }) => Number(size ?? -1)),
      }));
    }
    case 'oip-grpc': {
      const request = new ProtoWriter()
        .string(1, model)
        .string(2, version ?? '')
        .finish();
      return withSession(options, async (session) =>
        readOipMetadata(
          await unary(session, options, '/inference.GRPCInferenceService/ModelMetadata', request),
        ),
      );
    }
    case 'tfs-grpc': {
      const request = new ProtoWriter()
        .message(1, tfSpec(options))
        .string(2, 'signature_def')
        .finish();
      return withSession(options, async (session) =>
        readTfMetadata(
          await unary(
            session,
            options,
            '/tensorflow.serving.PredictionService/GetModelMetadata',
            request,
          ),
        ),
      );
    }
  }
}

/** A load of requests with these inputs. */
export function serverSubject(
  options: ServerOptions,
  inputs: Readonly<Record<string, Tensor>>,
): Subject {
  const { url, protocol, model, version, json, headers } = options;
  const path = pathOf(model, version);
  switch (protocol) {
    case 'oip-http': {
      const { parts, jsonBytes } = encodeRequest(inputs, { binary: !json, outputs: undefined });
      const types: Record<string, string> = jsonBytes
        ? {
            'content-type': 'application/octet-stream',
            'inference-header-content-length': String(jsonBytes),
          }
        : { 'content-type': 'application/json' };
      const request = {
        path: `/v2/models/${path}/infer`,
        headers: { ...headers, ...types },
        body: parts,
      };
      return new HttpSubject(url, [request], options.connections);
    }
    case 'tfs-http': {
      const byName = Object.fromEntries(
        Object.entries(inputs).map(([name, tensor]) => [name, nested(tensor)]),
      );
      const body = [Buffer.from(JSON.stringify({ inputs: byName }))];
      const request = {
        path: `/v1/models/${path}:predict`,
        headers: { ...headers, 'content-type': 'application/json' },
        body,
      };
      return new HttpSubject(url, [request], options.connections);
    }
    case 'oip-grpc':
      return grpcSubject(
        options,
        '/inference.GRPCInferenceService/ModelInfer',
        oipRequest(options, inputs),
      );
    case 'tfs-grpc':
      return grpcSubject(
        options,
        '/tensorflow.serving.PredictionService/Predict',
        tfRequest(options, inputs),
      );
  }
}

/** As nested lists, which TensorFlow Serving wants. */
function nested({ dtype, shape, data }: Tensor): unknown {
  const isBig = dtype === 'int64' || dtype === 'uint64';
  const flat = Array.from(data as ArrayLike<unknown>, (value) =>
    dtype === 'bool' ? value !== 0 : isBig ? Number(value) : value,
  );
  let lists: unknown[] = flat;
  for (let axis = shape.length - 1; axis > 0; axis--) {
    const size = shape[axis]!;
    const count = size > 0 ? lists.length / size : 0;
    lists = Array.from({ length: count }, (_, i) => lists.slice(i * size, (i + 1) * size));
  }
  return shape.length === 0 ? flat[0] : lists;
}

// ---- gRPC, below any library: one message each way ----

function oipRequest(
  { model, version }: ServerOptions,
  inputs: Readonly<Record<string, Tensor>>,
): Buffer {
  const writer = new ProtoWriter().string(1, model);
  if (version !== undefined) writer.string(2, version);
  for (const [name, tensor] of Object.entries(inputs)) {
    writer.message(
      5,
      new ProtoWriter().string(1, name).string(2, datatypeOf(tensor.dtype)).packed(3, tensor.shape),
    );
  }
  for (const tensor of Object.values(inputs)) writer.bytes(7, bytesOf(tensor));
  return writer.finish();
}

function tfSpec({ model, version }: ServerOptions): ProtoWriter {
  const writer = new ProtoWriter().string(1, model);
  if (version !== undefined) writer.message(2, new ProtoWriter().uint(1, Number(version)));
  return writer;
}

function tfRequest(options: ServerOptions, inputs: Readonly<Record<string, Tensor>>): Buffer {
  const writer = new ProtoWriter().message(1, tfSpec(options));
  for (const [name, tensor] of Object.entries(inputs)) {
    writer.message(2, new ProtoWriter().string(1, name).message(2, tensorProto(tensor)));
  }
  return writer.finish();
}

function readOipMetadata(message: Uint8Array): InputSpec[] {
  const specs: InputSpec[] = [];
  const reader = new ProtoReader(message);
  while (reader.next()) {
    if (reader.field !== 4) {
      reader.skip();
      continue;
    }
    const input = reader.message();
    const spec = { name: '', datatype: '', shape: [] as number[] };
    while (input.next()) {
      if (input.field === 1) spec.name = input.string();
      else if (input.field === 2) spec.datatype = input.string();
      else if (input.field === 3) input.repeated((raw) => spec.shape.push(raw.rawSafeInt64()));
      else input.skip();
    }
    specs.push(oipSpec(spec));
  }
  return specs;
}

/** Walks down fields of messages, each but the last by its number. */
function* within(reader: ProtoReader, field: number): Generator<ProtoReader> {
  while (reader.next()) {
    if (reader.field === field) yield reader.message();
    else reader.skip();
  }
}

/** GetModelMetadataResponse: metadata (2) of Any by name, whose value is a SignatureDefMap. */
function readTfMetadata(message: Uint8Array): InputSpec[] {
  const specs: InputSpec[] = [];
  for (const entry of within(new ProtoReader(message), 2)) {
    for (const any of within(entry, 2)) {
      for (const value of within(any, 2)) {
        for (const signature of within(value, 1)) {
          let name = '';
          while (signature.next()) {
            if (signature.field === 1) name = signature.string();
            else if (signature.field === 2 && name === 'serving_default') {
              for (const input of within(signature.message(), 1)) specs.push(readTfInput(input));
            } else signature.skip();
          }
        }
      }
    }
  }
  return specs;
}

function readTfInput(entry: ProtoReader): InputSpec {
  let name = '';
  let dtype = 0;
  const shape: number[] = [];
  while (entry.next()) {
    if (entry.field === 1) name = entry.string();
    else if (entry.field === 2) {
      const info = entry.message();
      while (info.next()) {
        if (info.field === 2) dtype = info.int64();
        else if (info.field === 3) {
          for (const dim of within(info.message(), 2)) {
            let size = 0;
            while (dim.next()) {
              if (dim.field === 1) size = dim.int64();
              else dim.skip();
            }
            shape.push(size);
          }
        } else info.skip();
      }
    } else entry.skip();
  }
  return { name, dtype: tfDType(name, dtype), shape };
}

class GrpcError extends Error {
  constructor(
    readonly code: string,
    message: string,
  ) {
    super(message);
  }
}

/** A message as gRPC frames it: not compressed, its length, itself. */
function frameOf(message: Uint8Array): Buffer {
  const head = Buffer.alloc(5);
  head.writeUInt32BE(message.length, 1);
  return Buffer.concat([head, message]);
}

function unary(
  session: http2.ClientHttp2Session,
  { url, headers }: ServerOptions,
  path: string,
  message: Uint8Array,
): Promise<Uint8Array> {
  return send(session, url, path, headers, frameOf(message));
}

function send(
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

function connect(url: URL): Promise<http2.ClientHttp2Session> {
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

async function withSession<T>(
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

/** Streams of one connection are read by one thread of most servers: several connections. */
const CONNECTIONS = 4;

function grpcSubject(options: ServerOptions, path: string, message: Buffer): Subject {
  const frame = frameOf(message);
  const sessions: (Promise<http2.ClientHttp2Session> | undefined)[] = [];
  let next = 0;
  const sessionAt = (at: number): Promise<http2.ClientHttp2Session> => {
    const made = connect(options.url).then((session) => {
      session.on('error', () => {}); // its streams say it
      session.once('close', () => {
        if (sessions[at] === made) sessions[at] = undefined;
      });
      return session;
    });
    made.catch(() => {
      if (sessions[at] === made) sessions[at] = undefined;
    });
    return made;
  };
  const call = async (): Promise<unknown> => {
    const at = next++ % CONNECTIONS;
    const session = await (sessions[at] ??= sessionAt(at));
    return send(session, options.url, path, options.headers, frame);
  };
  return new CallSubject(call, async () => {
    for (const session of sessions) (await session?.catch(() => undefined))?.destroy();
  });
}
