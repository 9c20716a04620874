export { Binding, type BindOptions, type BindShapes } from './runtime/binding.js';
export { DeviceTensor } from './runtime/device-tensor.js';
export { loadModel } from './catalog/loader.js';
export { Model } from './runtime/model.js';
export { type RunOptions, type RunSyncOptions } from './runtime/run-options.js';
export { allocate } from './runtime/lease.js';
export {
  availableProviders,
  configure,
  providerDevices,
  registerProvider,
  stats,
  trim,
} from './runtime/runtime.js';
export * from './errors.js';
export {
  type DataByDType,
  type DType,
  type Float16ArrayLike,
  type Tensor,
  type Value,
} from './tensor.js';
export type { BatchingOptions, PadRule } from './types/batching.js';
export type {
  DeviceCopies,
  DeviceStats,
  EngineStats,
  ModelStats,
  ProcessStats,
} from './types/stats.js';
export type { GpuOptions } from './types/gpu.js';
export type { LogLevel, RuntimeOptions } from './types/runtime-options.js';
export type { ModelOptions } from './types/model-options.js';
export type { ProviderDevice, ProviderSpec } from './types/provider.js';
export type { ValueMetadata } from './types/value.js';
export type { WarmUpSample } from './types/warm-up.js';
export {
  createEngine,
  Engine,
  type EngineLoadOptions,
  type EngineOptions,
  type InferOptions,
} from './engine.js';
export { ModelServable } from './catalog/model-servable.js';
export type { Catalog, CatalogEntry, VersionState } from './catalog/catalog.js';
export type {
  Call,
  Duration,
  Inputs,
  OutputSelection,
  Reply,
  RequestDefaults,
  Running,
  Servable,
  ServableAbout,
  ServableStats,
  TensorInfo,
  Values,
} from './types/servable.js';
export type { ExchangeInfo, Interceptor, Kind, Outcome } from './serving/interceptor.js';
export type { Peer } from './serving/peer.js';
export { Repository, type ControlMode, type RepositoryOptions } from './repository/repository.js';
export { type IndexEntry } from './repository/records.js';
export { type RepositoryEvent } from './repository/events.js';
export type { ModelConfig } from './catalog/model-config.js';
export type { LoadOverride } from './repository/folder.js';
export { SharedMemory, type SharedRegion } from './runtime/shared-memory.js';
export { createGrpcServer, type GrpcServerOptions } from './server/grpc/v2-service.js';
export { GrpcServer } from './server/grpc/server.js';
export { createTfsGrpcServer, type TfsGrpcServerOptions } from './server/grpc/tfs-service.js';
export { Logging } from './serving/log-settings.js';
export type { Serving } from './serving/serving.js';
export { createServer, type ServerOptions } from './server/http/server.js';
export { version } from './version.js';
