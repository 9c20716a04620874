// The gRPC server of the v2 protocol: one handler a method, no logic of its own.
import type {
  handleUnaryCall,
  Server,
  ServerUnaryCall,
  ServerWritableStream,
  UntypedServiceImplementation,
} from '@grpc/grpc-js';
import type { Engine } from '../engine/engine.js';
import { InvalidInputError } from '../errors.js';
import { loadParameters, modelConfiguration, modelMetadata } from '../protocol/v2-model.js';
import { NO_SHARED_MEMORY, type RegionSpan } from '../protocol/v2-request.js';
import type { SharedMemory } from '../engine/shared-memory.js';
import { Arrivals } from './arrivals.js';
import {
  explicitOnly,
  indexOf,
  isLoopback,
  mayControl,
  repositoryOf,
  type ControlOptions,
} from './control.js';
import { grpcStatusFor, HttpError } from './errors.js';
import { GrpcInfer } from './grpc-infer.js';
import { Logging } from './logging.js';
import { describe, find, serverMetadata, statisticsOf } from './models.js';
import { addReflection, grpc, loadPackage, serviceOf } from './protos.js';
import { findRegions, sharedMemoryOf } from './shared-memory.js';

export interface GrpcServerOptions extends ControlOptions {
  /** Limit on a message, in bytes, both ways. Default 64 MiB. */
  messageLimitBytes?: number;
  /** As ServerOptions has it. */
  allowSharedMemory?: boolean | SharedMemory;
  /** As ServerOptions has it. */
  logging?: Logging;
}

const DEFAULT_MESSAGE_LIMIT_BYTES = 64 * 1024 * 1024;
/** How often a watched health is looked at. */
const WATCH_MS = 500;

const INFERENCE = 'inference.GRPCInferenceService';
const HEALTH = 'grpc.health.v1.Health';

type Fields = Record<string, unknown>;
type Health = 'SERVING' | 'NOT_SERVING' | 'SERVICE_UNKNOWN';

/** A gRPC server that listens nowhere yet; closing it leaves the engine open. */
export class GrpcServer {
  readonly #server: Server;
  readonly #health: (service: string) => Health;
  readonly #ownMemory: SharedMemory | undefined;
  #open = true;

  /** @internal */
  constructor(engine: Engine, options: GrpcServerOptions) {
    if (options.adminToken === '')
      throw new InvalidInputError('adminToken: expected a token, got none');
    const limit = options.messageLimitBytes ?? DEFAULT_MESSAGE_LIMIT_BYTES;
    const memory = sharedMemoryOf(options.allowSharedMemory);
    this.#ownMemory = options.allowSharedMemory === true ? memory : undefined;
    this.#server = new (grpc().Server)({
      'grpc.max_receive_message_length': limit,
      'grpc.max_send_message_length': limit,
    });
    const logging = options.logging ?? new Logging();
    const definition = loadPackage('inference.proto', 'health.proto');
    const service = { ...serviceOf(definition, INFERENCE) };
    // Tensors are read and written where they are.
    for (const method of ['ModelInfer', 'ModelStreamInfer']) {
      service[method] = {
        ...service[method]!,
        requestDeserialize: (bytes: Buffer) => bytes,
        responseSerialize: (bytes: Buffer) => bytes,
      };
    }
    const regions = memory && ((span: RegionSpan) => memory.span(span));
    const infer = new GrpcInfer(engine, new Arrivals(), regions);
    this.#server.addService(service, {
      ...answers(modelMethods(engine, memory !== undefined)),
      ...answers(controlMethods(engine, memory, logging), (call) =>
        mayControl(
          call.metadata.get('authorization')[0]?.toString(),
          [...this.#addresses].every(isLoopback),
          options,
        ),
      ),
      ModelInfer: infer.unary,
      ModelStreamInfer: infer.stream as UntypedServiceImplementation[string],
    });
    this.#health = (name) =>
      name !== '' && name !== INFERENCE && name !== HEALTH
        ? engine.versions(name).length > 0
          ? 'SERVING'
          : 'SERVICE_UNKNOWN'
        : this.#open && engine.ready
          ? 'SERVING'
          : 'NOT_SERVING';
    this.#server.addService(serviceOf(definition, HEALTH), {
      ...answers({
        Check: ({ service: name }) => {
          const status = this.#health(String(name));
          if (status !== 'SERVICE_UNKNOWN') return { status };
          throw new HttpError(404, `service "${String(name)}" is not known`);
        },
      }),
      Watch: ((call: ServerWritableStream<{ service: string }, { status: Health }>) =>
        this.#watch(call)) as UntypedServiceImplementation[string],
    });
    addReflection(this.#server, definition);
  }

  readonly #addresses = new Set<string>();

  #watch(call: ServerWritableStream<{ service: string }, { status: Health }>): void {
    let last: Health | undefined;
    const look = (): void => {
      const status = this.#health(call.request.service);
      if (status !== last) call.write({ status });
      last = status;
      if (!this.#open) stop();
    };
    const timer = setInterval(look, WATCH_MS);
    const stop = (): void => {
      clearInterval(timer);
      call.end();
    };
    call.on('cancelled', stop);
    look();
  }

  /**
   * Listens; more addresses may be added by calling it again.
   *
   * @returns the port
   * @throws (rejects) Error when the address cannot be had
   */
  listen({ host = '127.0.0.1', port }: { host?: string; port: number }): Promise<number> {
    const address = host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
    this.#addresses.add(host === 'localhost' ? '127.0.0.1' : host);
    return new Promise((resolve, reject) => {
      this.#server.bindAsync(address, grpc().ServerCredentials.createInsecure(), (error, bound) => {
        if (error) reject(error);
        else resolve(bound);
      });
    });
  }

  /** Takes no more calls, and waits for those under way. */
  close(): Promise<void> {
    this.#open = false;
    return new Promise((resolve) => {
      this.#server.tryShutdown(() => {
        this.#ownMemory?.unregister();
        resolve();
      });
    });
  }
}

/**
 * A gRPC server of the Open Inference Protocol v2 with Triton's extensions, grpc.health.v1 and server
 * reflection, over the engine's models.
 */
export function createGrpcServer(engine: Engine, options: GrpcServerOptions = {}): GrpcServer {
  return new GrpcServer(engine, options);
}

type Method = (request: Fields) => object | Promise<object>;

/** Methods as handlers; `guard` throws for who may not call them. */
function answers(
  methods: Record<string, Method>,
  guard?: (call: ServerUnaryCall<Fields, object>) => void,
): UntypedServiceImplementation {
  const handlers: UntypedServiceImplementation = {};
  for (const [name, method] of Object.entries(methods)) {
    const handler: handleUnaryCall<Fields, object> = (call, callback) => {
      const answer = async (): Promise<object> => {
        guard?.(call);
        return method(call.request);
      };
      answer().then(
        (response) => callback(null, response),
        (error: unknown) => callback(grpcStatusFor(error)),
      );
    };
    handlers[name] = handler as handleUnaryCall<unknown, unknown>;
  }
  return handlers;
}

function modelOf(request: Fields): { model: string; version?: string } {
  const { name, version } = request as { name: string; version: string };
  return version === '' ? { model: name } : { model: name, version };
}

function modelMethods(engine: Engine, sharedMemory: boolean): Record<string, Method> {
  return {
    ServerLive: () => ({ live: true }),
    ServerReady: () => ({ ready: engine.ready }),
    ModelReady: (request) => {
      const { model, version } = modelOf(request);
      return { ready: engine.find(model, version) !== undefined };
    },
    ServerMetadata: () => serverMetadata(sharedMemory),
    ModelMetadata: (request) => {
      const { name, model } = find(engine, modelOf(request));
      return modelMetadata(name, engine.versions(name), model.inputs, model.outputs);
    },
    ModelConfig: (request) => ({
      config: modelConfiguration(describe(find(engine, modelOf(request)))),
    }),
    ModelStatistics: (request) =>
      statisticsOf(engine, request['name'] === '' ? undefined : modelOf(request)),
  };
}

/** A setting or parameter of a oneof: the one that is there. */
function chosen(value: unknown): unknown {
  const { parameter_choice: choice, ...rest } = value as Fields & { parameter_choice?: string };
  return choice === undefined ? undefined : rest[choice];
}

function controlMethods(
  engine: Engine,
  memory: SharedMemory | undefined,
  logging: Logging,
): Record<string, Method> {
  const allowed = (): SharedMemory => {
    if (memory) return memory;
    throw new InvalidInputError(NO_SHARED_MEMORY);
  };
  return {
    RepositoryIndex: async ({ ready }) => ({ models: await indexOf(engine, ready === true) }),
    RepositoryModelLoad: async (request) => {
      const repository = repositoryOf(engine);
      explicitOnly(repository);
      const parameters = Object.entries(request['parameters'] as Fields);
      await repository.load(
        String(request['model_name']),
        loadParameters(parameters.map(([name, value]) => [name, chosen(value)])),
      );
      return {};
    },
    RepositoryModelUnload: async (request) => {
      const repository = repositoryOf(engine);
      explicitOnly(repository);
      await repository.unload(String(request['model_name']));
      return {};
    },
    SystemSharedMemoryStatus: ({ name }) => ({
      regions: Object.fromEntries(
        findRegions(allowed(), name === '' ? undefined : String(name)).map((region) => [
          region.name,
          { name: region.name, key: region.key, offset: region.offset, byte_size: region.bytes },
        ]),
      ),
    }),
    SystemSharedMemoryRegister: ({ name, key, offset, byte_size: bytes }) => {
      allowed().register({
        name: String(name),
        key: String(key),
        offset: offset as number,
        bytes: bytes as number,
      });
      return {};
    },
    SystemSharedMemoryUnregister: ({ name }) => {
      allowed().unregister(name === '' ? undefined : String(name));
      return {};
    },
    LogSettings: ({ settings }) => {
      const changes = Object.entries(settings as Fields).map(([name, value]) => [
        name,
        chosen(value),
      ]);
      if (changes.length > 0) logging.change(Object.fromEntries(changes));
      const answer = Object.entries(logging.settings).map(([name, value]) => [
        name,
        typeof value === 'boolean'
          ? { bool_param: value }
          : typeof value === 'number'
            ? { uint32_param: value }
            : { string_param: value },
      ]);
      return { settings: Object.fromEntries(answer) as Fields };
    },
  };
}
