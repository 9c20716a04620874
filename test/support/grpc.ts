// Calls of gRPC, by grpc-js's client and by raw HTTP/2.
import http2 from 'node:http2';
import { fileURLToPath } from 'node:url';
import grpc from '@grpc/grpc-js';
import protoLoader from '@grpc/proto-loader';
import { createEngine, createGrpcServer, type Engine, type GrpcServer } from 'tercel';
import { afterAll, beforeAll } from 'vitest';
import { identity, slow } from './models.js';

const schema = fileURLToPath(new URL('../../schema', import.meta.url));
export const METHOD = '/inference.GRPCInferenceService/ModelInfer';

export interface Fields {
  [name: string]: unknown;
}
type Unary = (
  request: Fields,
  options: grpc.CallOptions,
  callback: (error: grpc.ServiceError | null, answer: Fields) => void,
) => grpc.ClientUnaryCall;

/** A request of the model `echo`. */
export function echo(values: number[], id = ''): Fields {
  const data = Float32Array.from(values);
  return {
    model_name: 'echo',
    id,
    inputs: [{ name: 'x', datatype: 'FP32', shape: [1, values.length] }],
    raw_input_contents: [Buffer.from(data.buffer)],
  };
}

/** A request of the model `slow` that runs for `rounds` rounds. */
export function slowly(rounds: bigint): Fields {
  return {
    model_name: 'slow',
    inputs: [
      { name: 'x', datatype: 'FP32', shape: [64, 64] },
      { name: 'rounds', datatype: 'INT64', shape: [] },
    ],
    raw_input_contents: [Buffer.alloc(64 * 64 * 4), Buffer.from(BigInt64Array.of(rounds).buffer)],
  };
}

export const floats = (answer: Fields): number[] => {
  const [bytes] = answer['raw_output_contents'] as [Buffer];
  return Array.from(new Float32Array(Uint8Array.from(bytes).buffer));
};

export function frame(message: Buffer, flag = 0, length = message.length): Buffer {
  const prefix = Buffer.alloc(5);
  prefix[0] = flag;
  prefix.writeUInt32BE(length, 1);
  return Buffer.concat([prefix, message]);
}

/** A client of the server at a port of this machine. */
export class GrpcPeer {
  readonly port: number;
  readonly client: grpc.Client & Record<string, Unary>;
  /** A ModelInfer request as a message. */
  readonly serialize: (value: object) => Buffer;

  constructor(port: number) {
    this.port = port;
    const loaded = protoLoader.loadSync('inference.proto', {
      includeDirs: [schema],
      keepCase: true,
      defaults: true,
    });
    const service = loaded['inference.GRPCInferenceService'] as unknown as grpc.ServiceDefinition;
    this.serialize = service['ModelInfer']!.requestSerialize as typeof this.serialize;
    const Client = grpc.makeGenericClientConstructor(service, 'inference');
    const insecure = grpc.credentials.createInsecure();
    this.client = new Client(`127.0.0.1:${port}`, insecure) as unknown as typeof this.client;
  }

  close(): void {
    this.client.close();
  }

  call(method: string, request: Fields, options: grpc.CallOptions = {}): Promise<Fields> {
    return new Promise((resolve, reject) => {
      this.client[method]!.call(this.client, request, options, (error, answer) => {
        if (error) reject(error);
        else resolve(answer);
      });
    });
  }

  /** A call by raw HTTP/2: what came back of headers and trailers, and the answer's bytes. */
  raw(
    parts: Buffer[],
    headers: http2.OutgoingHttpHeaders = {},
  ): Promise<{ code: string; message: string; body: Buffer }> {
    return new Promise((resolve, reject) => {
      const session = http2.connect(`http://127.0.0.1:${this.port}`);
      session.on('error', reject);
      const stream = session.request({
        ':method': 'POST',
        ':path': METHOD,
        'content-type': 'application/grpc',
        te: 'trailers',
        ...headers,
      });
      let found: http2.IncomingHttpHeaders = {};
      const body: Buffer[] = [];
      stream.on('response', (got) => (found = { ...found, ...got }));
      stream.on('trailers', (got) => (found = { ...found, ...got }));
      stream.on('data', (chunk: Buffer) => body.push(chunk));
      stream.on('error', () => {});
      stream.on('close', () => {
        session.close();
        resolve({
          code: String(found['grpc-status']),
          message: decodeURI(String(found['grpc-message'])),
          body: Buffer.concat(body),
        });
      });
      const next = (): void => {
        const part = parts.shift();
        if (!part) stream.end();
        else stream.write(part, () => setTimeout(next, 2));
      };
      next();
    });
  }
}

/** A server of the file's tests with the models `echo` and `slow`, and a client of it. */
export function served(messageLimitBytes: number): {
  readonly engine: Engine;
  readonly server: GrpcServer;
  readonly peer: GrpcPeer;
} {
  const all: { engine?: Engine; server?: GrpcServer; peer?: GrpcPeer } = {};
  beforeAll(async () => {
    const engine = (all.engine = createEngine());
    await engine.load('echo', identity(1, ['n', 'm']));
    await engine.load('slow', slow(), { lanes: 1 });
    all.server = createGrpcServer(engine, { messageLimitBytes });
    all.peer = new GrpcPeer(await all.server.listen({ port: 0 }));
  });
  afterAll(async () => {
    all.peer?.close();
    await all.server?.close();
    await all.engine?.close();
  });
  return all as Required<typeof all>;
}
