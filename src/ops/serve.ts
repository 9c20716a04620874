// Serving a repository: listeners, drain, signals, and what is said of it.
import { createEngine } from '../engine.js';
import type { RepositoryEvent } from '../repository/events.js';
import type { ControlMode } from '../repository/repository.js';
import { SharedMemory } from '../runtime/shared-memory.js';
import { createTfsGrpcServer } from '../server/grpc/tfs-service.js';
import { createGrpcServer } from '../server/grpc/v2-service.js';
import { createServer } from '../server/http/server.js';
import { Logging } from '../serving/log-settings.js';

/** As the flags of the same names say. */
export interface ServeOptions {
  models: string;
  host: string;
  httpPort: number;
  grpcPort: number | false;
  tfsHttpPort?: number;
  tfsGrpcPort?: number;
  modelControl: ControlMode;
  loadModel: string[];
  pollSeconds: number;
  exitOnError: boolean;
  threads: number;
  lanes?: number;
  computeThreads?: number;
  bodyLimit: number;
  adminToken?: string;
  allowAdmin?: boolean;
  allowSharedMemory?: boolean;
  verbose?: boolean;
}

/** How long requests in flight may take after the first signal. */
const GRACE_MS = 10_000;

function report(event: RepositoryEvent, { settings }: Logging): void {
  const wanted = {
    loaded: settings.log_info,
    unloaded: settings.log_info,
    failed: settings.log_error,
    building: settings.log_info,
    warning: settings.log_warning,
  };
  if (!wanted[event.kind]) return;
  switch (event.kind) {
    case 'loaded':
      console.log(`loaded ${event.name} version ${event.version} in ${event.ms.toFixed(0)} ms`);
      break;
    case 'unloaded':
      console.log(`unloaded ${event.name} version ${event.version}`);
      break;
    case 'failed':
      console.error(
        `failed to load ${event.name}${event.version && ` version ${event.version}`}: ${event.reason}`,
      );
      break;
    case 'building':
      console.log(
        `building TensorRT's engines for ${event.name} version ${event.version}; it is served without meanwhile`,
      );
      break;
    case 'warning':
      console.error(`warning: ${event.text}`);
  }
}

/**
 * Serves a repository until the process is told to stop.
 *
 * @throws (rejects) Error when it cannot start: an address that cannot be had, no model, with
 *   `exitOnError` the first model's failure
 */
export async function serve(options: ServeOptions): Promise<void> {
  if (options.loadModel.length > 0 && options.modelControl !== 'explicit') {
    throw new Error('--load-model needs --model-control explicit');
  }
  const engine = createEngine({
    ...(options.computeThreads && { computeThreads: options.computeThreads }),
  });
  const logging = new Logging();
  if (options.verbose) logging.change({ log_verbose_level: 1 });
  const common = {
    logging,
    ...(options.adminToken !== undefined && { adminToken: options.adminToken }),
    ...(options.allowAdmin && { allowAdmin: true }),
    ...(options.allowSharedMemory && { allowSharedMemory: new SharedMemory() }),
  };
  const app = createServer(engine, {
    ...common,
    bodyLimitBytes: options.bodyLimit,
  });
  const grpc =
    options.grpcPort === false
      ? undefined
      : createGrpcServer(engine, { ...common, messageLimitBytes: options.bodyLimit });
  const tfsGrpc =
    options.tfsGrpcPort === undefined
      ? undefined
      : createTfsGrpcServer(engine, { ...common, messageLimitBytes: options.bodyLimit });
  // The same routes on another port, where clients of TensorFlow Serving look for them.
  const tfsHttp =
    options.tfsHttpPort === undefined
      ? undefined
      : createServer(engine, { ...common, bodyLimitBytes: options.bodyLimit });

  let stopping = false;
  const stop = (signal: NodeJS.Signals): void => {
    if (stopping) process.exit(130); // asked twice
    stopping = true;
    console.log(`${signal}: finishing requests in flight`);
    setTimeout(() => process.exit(1), GRACE_MS).unref();
    void Promise.all([app.close(), grpc?.close(), tfsHttp?.close(), tfsGrpc?.close()]).then(() =>
      engine.close(),
    );
  };
  process.on('SIGINT', stop);
  process.on('SIGTERM', stop);

  // Listening first: who waits for readiness is told that it is not there yet.
  const address = await app.listen({ host: options.host, port: options.httpPort });
  const grpcPort = await grpc?.listen({ host: options.host, port: options.grpcPort as number });
  const tfsAddress = await tfsHttp?.listen({ host: options.host, port: options.tfsHttpPort! });
  const tfsPort = await tfsGrpc?.listen({ host: options.host, port: options.tfsGrpcPort! });
  const repository = await engine.loadRepository(options.models, {
    control: options.modelControl,
    models: options.loadModel,
    pollMs: options.pollSeconds * 1000,
    strict: options.exitOnError,
    defaults: { threads: options.threads, ...(options.lanes && { lanes: options.lanes }) },
    onEvent: (event) => report(event, logging),
  });
  if (options.modelControl === 'none' && (await repository.index()).length === 0) {
    throw new Error(
      `no model in "${options.models}": expected <name>/<version>/model.onnx below it, as in digits/1/model.onnx`,
    );
  }
  console.log(`serving ${engine.names().join(', ') || 'no model yet'} at ${address}`);
  if (tfsAddress !== undefined) console.log(`TensorFlow Serving REST at ${tfsAddress}`);
  if (tfsPort !== undefined) console.log(`TensorFlow Serving gRPC at ${options.host}:${tfsPort}`);
  if (grpcPort !== undefined) console.log(`gRPC at ${options.host}:${grpcPort}`);
}
