export {
  Client,
  type ClientInferOptions,
  type ClientOptions,
  type ModelMetadata,
  type ModelTypes,
  type RepositoryEntry,
  type TensorMetadata,
} from './client.js';
export { type InferResult, type OutputRequest } from './codec.js';
export { ResponseError, type EndpointOptions } from './endpoints.js';
export { typesFile } from './types-file.js';
export * from '../errors.js';
export type { DataByDType, DType, Tensor } from '../tensor.js';
