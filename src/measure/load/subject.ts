// A server's model as something that a load can be put on.
import type http2 from 'node:http2';
import { encodeRequest } from '../../client/codec.js';
import { ProtoWriter } from '../../protobuf.js';
import { tensorProto } from '../../protocol/tfs/grpc.js';
import { bytesOf, datatypeOf } from '../../protocol/v2/datatypes.js';
import type { Tensor } from '../../tensor.js';
import { CallSubject } from './call-load.js';
import { connect, frameOf, send } from './grpc.js';
import { HttpSubject } from './http-load.js';
import type { Subject } from './load.js';
import { pathOf, type ServerOptions } from './servers.js';

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

export function tfSpec({ model, version }: ServerOptions): ProtoWriter {
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
