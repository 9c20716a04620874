// The gRPC server of the v2 protocol: one handler a method, no logic of its own.
import type { UntypedServiceImplementation } from '@grpc/grpc-js';
import { loadParameters } from '../../protocol/v2/control.js';
import { modelConfiguration, modelMetadata } from '../../protocol/v2/describe.js';
import { GrpcCodec } from '../../protocol/v2/grpc-codec.js';
import type { GrpcPlan } from '../../protocol/v2/grpc.js';
import { serverMetadata, statisticsOf } from '../../serving/about.js';
import { explicitRepository, indexOf } from '../../serving/control.js';
import { contextOf, type ServerBasics } from '../../serving/context.js';
import type { Logging } from '../../serving/log-settings.js';
import type { SharedRegions } from '../../serving/regions.js';
import type { Serving } from '../../serving/serving.js';
import { handler, handlers, type Fields, type Method } from './call-exchange.js';
import { addHealth, HEALTH } from './health.js';
import { streamInfer, type InferStream } from './infer-stream.js';
import { addReflection, inBytes, loadPackage, serviceOf } from './protos.js';
import { GrpcServer } from './server.js';

export interface GrpcServerOptions extends ServerBasics {
  /** Limit on a message, in bytes, both ways. Default 64 MiB. */
  messageLimitBytes?: number;
}

const INFERENCE = 'inference.GRPCInferenceService';

/**
 * A gRPC server of the Open Inference Protocol v2 with Triton's extensions, grpc.health.v1 and server
 * reflection, over an engine's models.
 *
 * @throws InvalidInputError for an empty adminToken
 */
export function createGrpcServer(serving: Serving, options: GrpcServerOptions = {}): GrpcServer {
  const { context, regions, logging, close } = contextOf(serving, options);
  const server = new GrpcServer(context, options.messageLimitBytes);
  server.onClose(close);
  const definition = loadPackage('inference.proto', 'health.proto');
  const codec = new GrpcCodec(regions.spans);
  // Tensors are read and written where they are.
  server.add(inBytes(serviceOf(definition, INFERENCE), 'ModelInfer', 'ModelStreamInfer'), {
    ...handlers(server, 'health', healthMethods(serving)),
    ...handlers(server, 'describe', modelMethods(serving, regions.allowed)),
    ...handlers(server, 'control', {
      ...controlMethods(serving, logging),
      ...regionMethods(regions),
    }),
    // Where the call is not plain: see unary.ts.
    ModelInfer: handler<Buffer, Buffer>(server, 'infer', async (message, exchange) => {
      exchange.concurrent = serving.burst.count();
      exchange.bytesIn = message.length;
      const inputs = codec.read(exchange, message);
      const plan = exchange.plan as GrpcPlan;
      const servable = exchange.find(plan.model, plan.version);
      const values = await exchange.values(servable, inputs);
      const response = codec.write(plan, servable, exchange.id, values);
      exchange.bytesOut = response.length;
      return response;
    }),
    ModelStreamInfer: ((call: InferStream) =>
      streamInfer(server, codec, call)) as UntypedServiceImplementation[string],
  });
  server.addUnary(`/${INFERENCE}/ModelInfer`, codec);
  addHealth(server, serviceOf(definition, HEALTH), [INFERENCE]);
  addReflection(server.transport, definition);
  return server;
}

function modelOf(request: Fields): [model: string, version?: string] {
  const { name, version } = request as { name: string; version: string };
  return version === '' ? [name] : [name, version];
}

function healthMethods(serving: Serving): Record<string, Method> {
  return {
    ServerLive: () => ({ live: true }),
    ServerReady: () => ({ ready: serving.ready }),
    ModelReady: (request) => ({ ready: serving.catalog.find(...modelOf(request)) !== undefined }),
  };
}

function modelMethods(serving: Serving, sharedMemory: boolean): Record<string, Method> {
  return {
    ServerMetadata: () => serverMetadata(sharedMemory),
    ModelMetadata: (request, exchange) => {
      const servable = exchange.find(...modelOf(request));
      return modelMetadata(servable, serving.catalog.versions(servable.name));
    },
    ModelConfig: (request, exchange) => ({
      config: modelConfiguration(exchange.find(...modelOf(request))),
    }),
    ModelStatistics: (request) => {
      const [model, version] = modelOf(request);
      if (model === '') return statisticsOf(serving);
      return statisticsOf(serving, { model, ...(version !== undefined && { version }) });
    },
  };
}

/** A setting or parameter of a oneof: the one that is there. */
function chosen(value: unknown): unknown {
  const { parameter_choice: choice, ...rest } = value as Fields & { parameter_choice?: string };
  return choice === undefined ? undefined : rest[choice];
}

function controlMethods(serving: Serving, logging: Logging): Record<string, Method> {
  return {
    RepositoryIndex: async ({ ready }) => ({ models: await indexOf(serving, ready === true) }),
    RepositoryModelLoad: async (request) => {
      const repository = explicitRepository(serving);
      const parameters = Object.entries(request['parameters'] as Fields);
      await repository.load(
        String(request['model_name']),
        loadParameters(parameters.map(([name, value]) => [name, chosen(value)])),
      );
      return {};
    },
    RepositoryModelUnload: async (request) => {
      await explicitRepository(serving).unload(String(request['model_name']));
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

function regionMethods(regions: SharedRegions): Record<string, Method> {
  const named = (name: unknown): string | undefined => (name === '' ? undefined : String(name));
  return {
    SystemSharedMemoryStatus: ({ name }) => ({
      regions: Object.fromEntries(
        regions
          .find(named(name))
          .map(({ name, key, offset, bytes }) => [name, { name, key, offset, byte_size: bytes }]),
      ),
    }),
    SystemSharedMemoryRegister: ({ name, key, offset, byte_size: bytes }) => {
      regions.register({
        name: String(name),
        key: String(key),
        offset: offset as number,
        bytes: bytes as number,
      });
      return {};
    },
    SystemSharedMemoryUnregister: ({ name }) => {
      regions.unregister(named(name));
      return {};
    },
  };
}
