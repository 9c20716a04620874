// One request by every transport: how each says it, and what it is told.
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import { fileURLToPath } from 'node:url';
import grpc from '@grpc/grpc-js';
import protoLoader from '@grpc/proto-loader';
import type { FastifyInstance } from 'fastify';
import {
  createGrpcServer,
  createServer,
  createTfsGrpcServer,
  TercelError,
  type Engine,
  type GrpcServer,
  type Tensor,
} from 'tercel';
import type { App } from './wire.js';

export interface Ask {
  readonly model: string;
  readonly version?: string;
  readonly inputs: Readonly<Record<string, Tensor>>;
  readonly outputs?: readonly string[];
  readonly timeoutMs?: number;
  readonly headers?: Readonly<Record<string, string>>;
}

/** What a client is told: HTTP's status, gRPC's code or the error's code; undefined where there is none. */
export interface Told {
  readonly code: number | string | undefined;
  readonly words: string;
  /** The answers: one, or several of a stream. Outputs by name. */
  readonly values: Record<string, number[]>[];
  readonly headers: Readonly<Record<string, string>>;
}

export interface Transport {
  readonly name: string;
  /** What its codes are. */
  readonly codes: 'http' | 'grpc' | 'none' | 'error';
  /** Whether a request can say which outputs, which dtype, which shape, and how long it may take. */
  readonly says: readonly ('outputs' | 'dtype' | 'shape' | 'timeout')[];
  /** Whether it carries an answer in parts. */
  readonly streams: boolean;
  /** Requests that took the fast path; undefined where there is none. */
  readonly hot: (() => number) | undefined;
  readonly ask: (ask: Ask, signal?: AbortSignal) => Promise<Told>;
}

const schema = fileURLToPath(new URL('../../schema', import.meta.url));
const datatypes: Readonly<Record<string, string>> = { float32: 'FP32', int64: 'INT64' };
const GONE: Told = { code: 'gone', words: '', values: [], headers: {} };

const bytesOf = ({ data }: Tensor): Buffer => {
  const view = data as Float32Array;
  return Buffer.from(view.buffer, view.byteOffset, view.byteLength);
};
const numbersOf = ({ data }: Tensor): number[] => Array.from(data as Float32Array, Number);

/** As JSON has a tensor: nested lists. */
function nested({ shape }: Tensor, values: number[]): unknown {
  const [first, ...rest] = shape;
  if (first === undefined) return values[0];
  const size = values.length / first;
  return Array.from({ length: first }, (_, i) =>
    nested({ shape: rest } as unknown as Tensor, values.slice(i * size, (i + 1) * size)),
  );
}

interface Sent {
  readonly path: string;
  readonly headers: Record<string, string>;
  readonly body: Buffer;
}

/** A v2 request with binary tensors. */
function v2Request({ model, version, inputs, outputs, timeoutMs, headers = {} }: Ask): Sent {
  const listed = Object.entries(inputs);
  const json = Buffer.from(
    JSON.stringify({
      inputs: listed.map(([name, tensor]) => ({
        name,
        shape: tensor.shape,
        datatype: datatypes[tensor.dtype],
        parameters: { binary_data_size: bytesOf(tensor).length },
      })),
      ...(outputs && { outputs: outputs.map((name) => ({ name })) }),
      ...(timeoutMs !== undefined && { parameters: { timeout: timeoutMs * 1000 } }),
    }),
  );
  return {
    path: `/v2/models/${model}${version === undefined ? '' : `/versions/${version}`}/infer`,
    headers: { ...headers, 'Inference-Header-Content-Length': String(json.length) },
    body: Buffer.concat([json, ...listed.map(([, tensor]) => bytesOf(tensor))]),
  };
}

function jsonRequest(path: string, value: unknown, headers: Ask['headers'] = {}): Sent {
  return { path, headers: { ...headers }, body: Buffer.from(JSON.stringify(value)) };
}

function tfsRequest({ model, version, inputs, headers }: Ask): Sent {
  const path = `/v1/models/${model}${version === undefined ? '' : `/versions/${version}`}:predict`;
  const columns = Object.entries(inputs).map(([name, t]) => [name, nested(t, numbersOf(t))]);
  return jsonRequest(path, { inputs: Object.fromEntries(columns) as object }, headers);
}

function generateRequest(ask: Ask, verb: string): Sent {
  const { model, version, inputs, timeoutMs, headers } = ask;
  const path = `/v2/models/${model}${version === undefined ? '' : `/versions/${version}`}/${verb}`;
  const values = Object.entries(inputs).map(([name, tensor]) => {
    const numbers = numbersOf(tensor);
    return [name, tensor.shape.length === 0 ? numbers[0] : numbers];
  });
  const parameters = timeoutMs === undefined ? {} : { parameters: { timeout: timeoutMs * 1000 } };
  return jsonRequest(path, { ...Object.fromEntries(values), ...parameters }, headers);
}

interface HttpAnswer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}

type Send = (port: number, sent: Sent, signal?: AbortSignal) => Promise<HttpAnswer | undefined>;

/** By Node's client, on connections that live on. */
function sender(agent: http.Agent): Send {
  return (port, { path, headers, body }, signal) =>
    new Promise((resolve) => {
      const request = http.request(
        {
          port,
          path,
          agent,
          method: 'POST',
          headers: { ...headers, 'content-length': body.length },
        },
        (response) => {
          const chunks: Buffer[] = [];
          response.on('data', (chunk: Buffer) => chunks.push(chunk));
          response.on('error', () => resolve(undefined));
          response.on('end', () =>
            resolve({
              status: response.statusCode!,
              headers: response.headers as Record<string, string>,
              body: Buffer.concat(chunks).toString(),
            }),
          );
        },
      );
      signal?.addEventListener('abort', () => request.destroy());
      request.on('error', () => resolve(undefined));
      request.end(body);
    });
}

function toldByHttp(answer: HttpAnswer | undefined, read: (body: string) => Told['values']): Told {
  if (!answer) return GONE;
  const { status, headers, body } = answer;
  if (status !== 200) {
    const { error } = JSON.parse(body) as { error: string };
    return { code: status, words: error, values: [], headers };
  }
  return { code: status, words: '', values: read(body), headers };
}

interface V2Output {
  name: string;
  data: number[];
}
const readV2 = (body: string): Told['values'] => [
  Object.fromEntries(
    (JSON.parse(body) as { outputs: V2Output[] }).outputs.map(({ name, data }) => [name, data]),
  ),
];
const flat = (value: unknown): number[] =>
  Array.isArray(value) ? (value as unknown[]).flat(9).map(Number) : [Number(value)];
const readGenerated = (body: string): Told['values'] => {
  const {
    model_name: _model,
    model_version: _version,
    ...outputs
  } = JSON.parse(body) as Record<string, unknown>;
  return [Object.fromEntries(Object.entries(outputs).map(([name, v]) => [name, flat(v)]))];
};

type Fields = Record<string, unknown>;

function serviceClient(
  file: string,
  service: string,
  port: number,
  options: grpc.ClientOptions = {},
): grpc.Client {
  const loaded = protoLoader.loadSync(file, {
    includeDirs: [schema],
    keepCase: true,
    oneofs: true,
  });
  const Client = grpc.makeGenericClientConstructor(
    loaded[service] as unknown as grpc.ServiceDefinition,
    service,
  );
  return new Client(`127.0.0.1:${port}`, grpc.credentials.createInsecure(), options);
}

function metadataFor({ headers = {} }: Ask): grpc.Metadata {
  const metadata = new grpc.Metadata();
  for (const [name, value] of Object.entries(headers)) metadata.set(name, value);
  return metadata;
}

/** A unary call. */
function callUnary(
  client: grpc.Client,
  method: string,
  request: Fields,
  ask: Ask,
  read: (answer: Fields) => Told['values'],
  signal?: AbortSignal,
): Promise<Told> {
  return new Promise((resolve) => {
    type Call = (
      request: Fields,
      metadata: grpc.Metadata,
      callback: (error: grpc.ServiceError | null, answer: Fields) => void,
    ) => grpc.ClientUnaryCall;
    let headers: Record<string, string> = {};
    const call = (client as unknown as Record<string, Call>)[method]!.call(
      client,
      request,
      metadataFor(ask),
      (error, answer) => {
        if (signal?.aborted) resolve(GONE);
        else if (error) {
          // Where the answer is but an error, its headers are trailers.
          const trailers = error.metadata.getMap() as Record<string, string>;
          const { code, details: words } = error;
          resolve({ code, words, values: [], headers: { ...headers, ...trailers } });
        } else resolve({ code: 0, words: '', values: read(answer), headers });
      },
    );
    call.on('metadata', (metadata) => (headers = metadata.getMap() as Record<string, string>));
    signal?.addEventListener('abort', () => call.cancel());
  });
}

function inferMessage({ model, version, inputs, outputs, timeoutMs }: Ask): Fields {
  return {
    model_name: model,
    ...(version !== undefined && { model_version: version }),
    ...(timeoutMs !== undefined && {
      parameters: { timeout: { int64_param: timeoutMs * 1000 } },
    }),
    inputs: Object.entries(inputs).map(([name, { dtype, shape }]) => ({
      name,
      datatype: datatypes[dtype],
      shape,
    })),
    ...(outputs && { outputs: outputs.map((name) => ({ name })) }),
    raw_input_contents: Object.values(inputs).map(bytesOf),
  };
}

function readInfer(answer: Fields): Told['values'] {
  const raw = answer['raw_output_contents'] as Buffer[];
  const outputs = answer['outputs'] as { name: string; datatype: string }[];
  return [
    Object.fromEntries(
      outputs.map(({ name }, i) => [
        name,
        Array.from(new Float32Array(Uint8Array.from(raw[i]!).buffer)),
      ]),
    ),
  ];
}

function streamOne(client: grpc.Client, ask: Ask, signal?: AbortSignal): Promise<Told> {
  return new Promise((resolve) => {
    type Open = (metadata: grpc.Metadata) => grpc.ClientDuplexStream<Fields, Fields>;
    const { ModelStreamInfer } = client as unknown as Record<string, Open>;
    const call = ModelStreamInfer!.call(client, metadataFor(ask));
    let told: Told = { code: undefined, words: '', values: [], headers: {} };
    call.on('data', (answer: Fields) => {
      const words = answer['error_message'] as string | undefined;
      const values = words ? [] : readInfer(answer['infer_response'] as Fields);
      told = { ...told, words: words ?? '', values: [...told.values, ...values] };
    });
    call.on('error', () => {});
    call.on('status', () => resolve(signal?.aborted ? GONE : told));
    signal?.addEventListener('abort', () => call.cancel());
    call.write(inferMessage(ask));
    call.end();
  });
}

const tfTypes: Readonly<Record<string, string>> = { float32: 'DT_FLOAT', int64: 'DT_INT64' };

function predictMessage({ model, version, inputs, outputs }: Ask): Fields {
  return {
    model_spec: { name: model, ...(version !== undefined && { version: { value: version } }) },
    inputs: Object.fromEntries(
      Object.entries(inputs).map(([name, tensor]) => [
        name,
        {
          dtype: tfTypes[tensor.dtype],
          tensor_shape: { dim: tensor.shape.map((size) => ({ size })) },
          tensor_content: bytesOf(tensor),
        },
      ]),
    ),
    ...(outputs && { output_filter: outputs }),
  };
}

function readPredict(answer: Fields): Told['values'] {
  const outputs = answer['outputs'] as Record<string, { float_val: number[] }>;
  return [Object.fromEntries(Object.entries(outputs).map(([name, { float_val: v }]) => [name, v]))];
}

/** Servers of every kind over an engine, and a client of each. */
export class Transports {
  readonly list: readonly Transport[];
  readonly engine: Engine;
  readonly #apps: FastifyInstance[] = [];
  readonly #servers: GrpcServer[] = [];
  readonly #clients: grpc.Client[] = [];
  readonly #agents: http.Agent[] = [];

  private constructor(
    engine: Engine,
    apps: { wire: App; routed: App },
    servers: { v2: GrpcServer; tfs: GrpcServer },
    ports: { v2: number; tfs: number },
  ) {
    this.engine = engine;
    this.#apps = Object.values(apps);
    this.#servers = Object.values(servers);
    const agent = new http.Agent({ keepAlive: true });
    const ownConnections = new http.Agent({ keepAlive: true });
    this.#agents = [agent, ownConnections];
    const infer = serviceClient('inference.proto', 'inference.GRPCInferenceService', ports.v2);
    const predict = serviceClient(
      'tensorflow_serving.proto',
      'tensorflow.serving.PredictionService',
      ports.tfs,
    );
    // Whose calls are not plain: grpc-js has to bring them.
    const compressing = serviceClient(
      'inference.proto',
      'inference.GRPCInferenceService',
      ports.v2,
      { 'grpc.default_compression_algorithm': grpc.compressionAlgorithms.gzip },
    );
    this.#clients = [infer, predict, compressing];
    const portOf = (app: App): number => (app.server.address() as AddressInfo).port;
    const overHttp =
      (
        app: App,
        by: http.Agent,
        request: (ask: Ask) => Sent,
        read: (body: string) => Told['values'],
      ) =>
      async (ask: Ask, signal?: AbortSignal): Promise<Told> =>
        toldByHttp(await sender(by)(portOf(app), request(ask), signal), read);
    const all = ['outputs', 'dtype', 'shape', 'timeout'] as const;
    this.list = [
      {
        name: 'HTTP wire',
        codes: 'http',
        says: all,
        streams: false,
        hot: () => apps.wire.hotRequests,
        ask: overHttp(apps.wire, agent, v2Request, readV2),
      },
      {
        name: 'HTTP small bodies',
        codes: 'http',
        says: all,
        streams: false,
        hot: () => apps.wire.hotRequests,
        // Behind a request that the wire hands over with its connection.
        ask: async (ask, signal) => {
          const own = new http.Agent({ keepAlive: true, maxSockets: 1 });
          await new Promise<void>((resolve) =>
            http.get({ port: portOf(apps.wire), path: '/v2/health/live', agent: own }, (response) =>
              response.resume().on('end', resolve),
            ),
          );
          const answer = await sender(own)(portOf(apps.wire), v2Request(ask), signal);
          own.destroy();
          return toldByHttp(answer, readV2);
        },
      },
      {
        name: 'Fastify',
        codes: 'http',
        says: all,
        streams: false,
        hot: undefined,
        ask: overHttp(apps.routed, ownConnections, v2Request, readV2),
      },
      {
        name: 'gRPC below grpc-js',
        codes: 'grpc',
        says: all,
        streams: false,
        hot: undefined,
        ask: (ask, signal) =>
          callUnary(infer, 'ModelInfer', inferMessage(ask), ask, readInfer, signal),
      },
      {
        name: 'gRPC by grpc-js',
        codes: 'grpc',
        says: all,
        streams: false,
        hot: undefined,
        ask: (ask, signal) =>
          callUnary(compressing, 'ModelInfer', inferMessage(ask), ask, readInfer, signal),
      },
      {
        name: 'gRPC stream',
        codes: 'none',
        says: all,
        streams: true,
        hot: undefined,
        ask: (ask, signal) => streamOne(infer, ask, signal),
      },
      {
        name: 'TFS REST',
        codes: 'http',
        says: ['shape'],
        streams: false,
        hot: undefined,
        ask: overHttp(apps.wire, ownConnections, tfsRequest, (body) => {
          const { outputs } = JSON.parse(body) as { outputs: unknown };
          const isNamed = typeof outputs === 'object' && !Array.isArray(outputs);
          const named = (isNamed ? outputs : { y: outputs }) as Record<string, unknown>;
          return [
            Object.fromEntries(Object.entries(named).map(([name, value]) => [name, flat(value)])),
          ];
        }),
      },
      {
        name: 'TFS gRPC',
        codes: 'grpc',
        says: ['outputs', 'dtype', 'shape'],
        streams: false,
        hot: undefined,
        ask: (ask, signal) =>
          callUnary(predict, 'Predict', predictMessage(ask), ask, readPredict, signal),
      },
      {
        name: 'generate',
        codes: 'http',
        says: ['timeout'],
        streams: false,
        hot: undefined,
        ask: overHttp(
          apps.wire,
          ownConnections,
          (ask) => generateRequest(ask, 'generate'),
          readGenerated,
        ),
      },
      {
        name: 'in process',
        codes: 'error',
        says: all,
        streams: false,
        hot: undefined,
        ask: (ask, signal) => inProcess(engine, ask, signal),
      },
    ];
  }

  /** generate_stream, whose answers are events. */
  async events(ask: Ask): Promise<Told> {
    const port = (this.#apps[0]!.server.address() as AddressInfo).port;
    const answer = await sender(this.#agents[1]!)(port, generateRequest(ask, 'generate_stream'));
    return toldByHttp(answer, (body) =>
      body
        .split('\n\n')
        .filter((event) => event !== '')
        .flatMap((event) => readGenerated(event.replace(/^data: /, ''))),
    );
  }

  /** The address of the HTTP server with the fast path. */
  get port(): number {
    return (this.#apps[0]!.server.address() as AddressInfo).port;
  }

  static async open(engine: Engine): Promise<Transports> {
    const wire = createServer(engine) as unknown as App;
    const routed = createServer(engine, { hotRoute: false }) as unknown as App;
    const v2 = createGrpcServer(engine);
    const tfs = createTfsGrpcServer(engine);
    for (const app of [wire, routed]) await app.listen({ host: '127.0.0.1', port: 0 });
    const ports = { v2: await v2.listen({ port: 0 }), tfs: await tfs.listen({ port: 0 }) };
    return new Transports(engine, { wire, routed }, { v2, tfs }, ports);
  }

  async close(): Promise<void> {
    for (const agent of this.#agents) agent.destroy();
    for (const client of this.#clients) client.close();
    await Promise.all([...this.#apps, ...this.#servers].map((server) => server.close()));
  }
}

async function inProcess(engine: Engine, ask: Ask, signal?: AbortSignal): Promise<Told> {
  const { model, version, inputs, outputs, timeoutMs } = ask;
  try {
    const values = await engine.infer(model, inputs, {
      ...(version !== undefined && { version }),
      ...(outputs && { outputs }),
      ...(timeoutMs !== undefined && { timeoutMs }),
      ...(signal && { signal }),
    });
    const numbers = Object.entries(values).map(([name, tensor]) => [name, numbersOf(tensor)]);
    return {
      code: 'OK',
      words: '',
      values: [Object.fromEntries(numbers) as Record<string, number[]>],
      headers: {},
    };
  } catch (error) {
    if (signal?.aborted) return GONE;
    const { message } = error as Error;
    const code = error instanceof TercelError ? error.code : 'not ours';
    return { code, words: message, values: [], headers: {} };
  }
}
