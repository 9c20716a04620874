// The services' descriptions, for gRPC: the .proto files of schema/, which clients may use too.
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import type * as grpcModule from '@grpc/grpc-js';
import type * as loaderModule from '@grpc/proto-loader';
import type * as reflectionModule from '@grpc/reflection';

const require = createRequire(import.meta.url);

/** Loaded at the first server: a program that only embeds the engine does not pay for it. */
export const grpc = (): typeof grpcModule => require('@grpc/grpc-js') as typeof grpcModule;

export type ServiceDefinition = grpcModule.ServiceDefinition;

/** A package of schema/, with messages as plain objects: field names as they stand, numbers as numbers. */
export function loadPackage(...files: string[]): loaderModule.PackageDefinition {
  const loader = require('@grpc/proto-loader') as typeof loaderModule;
  const folder = fileURLToPath(new URL('../../../schema', import.meta.url));
  return loader.loadSync(files, {
    includeDirs: [folder],
    keepCase: true,
    longs: Number,
    enums: String,
    defaults: true,
    oneofs: true,
  });
}

/** One of its services. */
export function serviceOf(
  definition: loaderModule.PackageDefinition,
  name: string,
): ServiceDefinition {
  return definition[name] as ServiceDefinition;
}

/** Writes messages of a type. */
export function messageOf(
  definition: loaderModule.PackageDefinition,
  name: string,
): (fields: object) => Buffer {
  const type = definition[name] as loaderModule.MessageTypeDefinition<object, object>;
  return (fields) => type.serialize(fields);
}

/** The service with messages of some methods as they are on the wire. */
export function inBytes(service: ServiceDefinition, ...methods: string[]): ServiceDefinition {
  const same = (bytes: Buffer): Buffer => bytes;
  const changed = methods.map((method) => [
    method,
    { ...service[method]!, requestDeserialize: same, responseSerialize: same },
  ]);
  return { ...service, ...(Object.fromEntries(changed) as ServiceDefinition) };
}

/** Tells clients such as grpcurl what there is. */
export function addReflection(
  server: grpcModule.Server,
  definition: loaderModule.PackageDefinition,
): void {
  const { ReflectionService } = require('@grpc/reflection') as typeof reflectionModule;
  new ReflectionService(definition).addToServer(server);
}
