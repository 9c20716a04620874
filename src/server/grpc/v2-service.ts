// The gRPC server of the v2 protocol: one handler a method, no logic of its own.
import type { UntypedServiceImplementation } from '@grpc/grpc-js';
import { InvalidInputError } from '../../errors.js';
import { loadParameters } from '../../protocol/v2/control.js';
import { modelConfiguration, modelMetadata } from '../../protocol/v2/describe.js';
import { NO_SHARED_MEMORY, type RegionSpan } from '../../protocol/v2/spans.js';
import type { SharedMemory } from '../../runtime/shared-memory.js';
import { describe, find, serverMetadata, statisticsOf } from '../../serving/about.js';
import { checkControl, type ControlOptions } from '../../serving/access.js';
import { Burst } from '../../serving/burst.js';
import { explicitRepository, indexOf } from '../../serving/control.js';
import { Logging } from '../../serving/log-settings.js';
import { findRegions, sharedMemoryOf } from '../../serving/regions.js';
import type { Serving } from '../../serving/serving.js';
import { addHealth, HEALTH } from './health.js';
import { streamInfer, type InferStream } from './infer-stream.js';
import { GrpcInfer } from './infer.js';
import { addReflection, inBytes, loadPackage, serviceOf } from './protos.js';
import { GrpcServer, handlers, type Fields, type Method } from './server.js';

export interface GrpcServerOptions extends ControlOptions {
  /** Limit on a message, in bytes, both ways. Default 64 MiB. */
  messageLimitBytes?: number;
  /** As ServerOptions has it. */
  allowSharedMemory?: boolean | SharedMemory;
  /** As ServerOptions has it. */
  logging?: Logging;
}

const INFERENCE = 'inference.GRPCInferenceService';

/**
 * A gRPC server of the Open Inference Protocol v2 with Triton's extensions, grpc.health.v1 and server
 * reflection, over an engine's models.
 *
 * @throws InvalidInputError for an empty adminToken
 */
export function createGrpcServer(serving: Serving, options: GrpcServerOptions = {}): GrpcServer {
  checkControl(options);
  const server = new GrpcServer(options.messageLimitBytes);
  const memory = sharedMemoryOf(options.allowSharedMemory);
  if (options.allowSharedMemory === true) server.onClose(() => memory?.unregister());
  const definition = loadPackage('inference.proto', 'health.proto');
  const regions = memory && ((span: RegionSpan) => memory.span(span));
  const infer = new GrpcInfer(serving.catalog, new Burst(), regions);
  // Tensors are read and written where they are.
  server.add(inBytes(serviceOf(definition, INFERENCE), 'ModelInfer', 'ModelStreamInfer'), {
    ...handlers(modelMethods(serving, memory !== undefined)),
    ...handlers(
      controlMethods(serving, memory, options.logging ?? new Logging()),
      server.guard(options),
    ),
    ModelInfer: infer.unary,
    ModelStreamInfer: ((call: InferStream) =>
      streamInfer(infer, call)) as UntypedServiceImplementation[string],
  });
  server.addUnary(`/${INFERENCE}/ModelInfer`, infer.below);
  addHealth(server, serviceOf(definition, HEALTH), serving, [INFERENCE]);
  addReflection(server.transport, definition);
  return server;
}

function modelOf(request: Fields): { model: string; version?: string } {
  const { name, version } = request as { name: string; version: string };
  return version === '' ? { model: name } : { model: name, version };
}

function modelMethods(serving: Serving, sharedMemory: boolean): Record<string, Method> {
  const { catalog } = serving;
  return {
    ServerLive: () => ({ live: true }),
    ServerReady: () => ({ ready: serving.ready }),
    ModelReady: (request) => {
      const { model, version } = modelOf(request);
      return { ready: catalog.find(model, version) !== undefined };
    },
    ServerMetadata: () => serverMetadata(sharedMemory),
    ModelMetadata: (request) => {
      const { name, model } = find(catalog, modelOf(request));
      return modelMetadata(name, catalog.versions(name), model.inputs, model.outputs);
    },
    ModelConfig: (request) => ({
      config: modelConfiguration(describe(find(catalog, modelOf(request)))),
    }),
    ModelStatistics: (request) =>
      statisticsOf(catalog, request['name'] === '' ? undefined : modelOf(request)),
  };
}

/** A setting or parameter of a oneof: the one that is there. */
function chosen(value: unknown): unknown {
  const { parameter_choice: choice, ...rest } = value as Fields & { parameter_choice?: string };
  return choice === undefined ? undefined : rest[choice];
}

function controlMethods(
  serving: Serving,
  memory: SharedMemory | undefined,
  logging: Logging,
): Record<string, Method> {
  const allowed = (): SharedMemory => {
    if (memory) return memory;
    throw new InvalidInputError(NO_SHARED_MEMORY);
  };
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
