// tercel serve: parses, prints, starts and stops.
import { Command, InvalidArgumentError, Option } from 'commander';
import { createEngine } from '../engine.js';
import type { ControlMode } from '../repository/repository.js';
import type { RepositoryEvent } from '../repository/events.js';
import { TercelError } from '../errors.js';
import { SharedMemory } from '../runtime/shared-memory.js';
import { createGrpcServer } from '../server/grpc/v2-service.js';
import { Logging } from '../serving/log-settings.js';
import { createServer } from '../server/http/server.js';
import { createTfsGrpcServer } from '../server/grpc/tfs-service.js';

interface ServeFlags {
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

function whole(least: number, most: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (!Number.isInteger(value) || value < least || value > most) {
      throw new InvalidArgumentError(`It must be a whole number from ${least} to ${most}.`);
    }
    return value;
  };
}

function seconds(text: string): number {
  const value = Number(text);
  if (!(value >= 0.1 && value <= 86_400)) {
    throw new InvalidArgumentError('It must be seconds from 0.1 to 86400.');
  }
  return value;
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

async function serve(flags: ServeFlags): Promise<void> {
  if (flags.loadModel.length > 0 && flags.modelControl !== 'explicit') {
    throw new Error('--load-model needs --model-control explicit');
  }
  const engine = createEngine({
    ...(flags.computeThreads && { computeThreads: flags.computeThreads }),
  });
  const logging = new Logging();
  const common = {
    logging,
    ...(flags.adminToken !== undefined && { adminToken: flags.adminToken }),
    ...(flags.allowAdmin && { allowAdmin: true }),
    ...(flags.allowSharedMemory && { allowSharedMemory: new SharedMemory() }),
  };
  const app = createServer(engine, {
    ...common,
    bodyLimitBytes: flags.bodyLimit,
    ...(flags.verbose && { logger: true }),
  });
  const grpc =
    flags.grpcPort === false
      ? undefined
      : createGrpcServer(engine, { ...common, messageLimitBytes: flags.bodyLimit });
  const tfsGrpc =
    flags.tfsGrpcPort === undefined
      ? undefined
      : createTfsGrpcServer(engine, { ...common, messageLimitBytes: flags.bodyLimit });
  // The same routes on another port, where clients of TensorFlow Serving look for them.
  const tfsHttp =
    flags.tfsHttpPort === undefined
      ? undefined
      : createServer(engine, { ...common, bodyLimitBytes: flags.bodyLimit });

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
  const address = await app.listen({ host: flags.host, port: flags.httpPort });
  const grpcPort = await grpc?.listen({ host: flags.host, port: flags.grpcPort as number });
  const tfsAddress = await tfsHttp?.listen({ host: flags.host, port: flags.tfsHttpPort! });
  const tfsPort = await tfsGrpc?.listen({ host: flags.host, port: flags.tfsGrpcPort! });
  const repository = await engine.loadRepository(flags.models, {
    control: flags.modelControl,
    models: flags.loadModel,
    pollMs: flags.pollSeconds * 1000,
    strict: flags.exitOnError,
    defaults: { threads: flags.threads, ...(flags.lanes && { lanes: flags.lanes }) },
    onEvent: (event) => report(event, logging),
  });
  if (flags.modelControl === 'none' && (await repository.index()).length === 0) {
    throw new Error(
      `no model in "${flags.models}": expected <name>/<version>/model.onnx below it, as in digits/1/model.onnx`,
    );
  }
  console.log(`serving ${engine.names().join(', ') || 'no model yet'} at ${address}`);
  if (tfsAddress !== undefined) console.log(`TensorFlow Serving REST at ${tfsAddress}`);
  if (tfsPort !== undefined) console.log(`TensorFlow Serving gRPC at ${flags.host}:${tfsPort}`);
  if (grpcPort !== undefined) console.log(`gRPC at ${flags.host}:${grpcPort}`);
}

export function serveCommand(): Command {
  return new Command('serve')
    .description(
      "Serve the models of a repository by the Open Inference Protocol v2 and TensorFlow Serving's",
    )
    .requiredOption('--models <folder>', 'the repository: <name>/<version>/model.onnx')
    .option('--host <address>', 'address to listen on', '127.0.0.1')
    .option('--http-port <port>', 'port of the REST endpoint; 0 picks one', whole(0, 65535), 8000)
    .option('--grpc-port <port>', 'port of the gRPC endpoint; 0 picks one', whole(0, 65535), 8001)
    .option('--no-grpc-port', 'no gRPC endpoint')
    .option(
      '--tfs-http-port <port>',
      "a port of its own for TensorFlow Serving's REST form (by custom 8501), which the HTTP port has too",
      whole(0, 65535),
    )
    .option(
      '--tfs-grpc-port <port>',
      "port of TensorFlow Serving's gRPC form (by custom 8500); none without it",
      whole(0, 65535),
    )
    .addOption(
      new Option(
        '--model-control <mode>',
        'none: all, once; poll: as the folder changes; explicit: as clients say',
      )
        .choices(['none', 'poll', 'explicit'])
        .default('none'),
    )
    .option(
      '--load-model <name>',
      "with explicit control, a model to load at the start; '*' is all; may be given again",
      (name: string, before: string[]) => [...before, name],
      [],
    )
    .option('--poll-seconds <seconds>', 'with poll control, time between two looks', seconds, 15)
    .option('--no-exit-on-error', 'go on when a model fails at the start; the index says why')
    .option('--threads <n>', 'threads inside one run', whole(1, 1024), 1)
    .option('--lanes <n>', 'runs side by side per model (default: as measured)', whole(1, 1024))
    .option(
      '--compute-threads <n>',
      'runs that compute at once, over all models (default: processors)',
      whole(1, 1024),
    )
    .option('--body-limit <bytes>', 'largest request body', whole(1, 2 ** 31 - 1), 64 * 1024 * 1024)
    .addOption(
      new Option(
        '--admin-token <token>',
        'load, unload and index need "Authorization: Bearer <token>"',
      ).env('TERCEL_ADMIN_TOKEN'),
    )
    .option('--allow-admin', 'load, unload and index are open on a listener that is not loopback')
    .option(
      '--allow-shared-memory',
      'clients on this machine may register system shared memory, for requests to name',
    )
    .option('--verbose', 'log requests')
    .action(async (flags: ServeFlags) => {
      try {
        await serve(flags);
      } catch (error) {
        const known =
          error instanceof TercelError || !(error as Error).stack?.includes('TypeError');
        console.error(
          `tercel serve: ${known ? (error as Error).message : String((error as Error).stack)}`,
        );
        process.exit(1);
      }
    });
}
