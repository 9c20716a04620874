// tercel serve: what is parsed of the command line.
import { Command, InvalidArgumentError, Option } from 'commander';
import { TercelError } from '../errors.js';
import { serve, type ServeOptions } from '../ops/serve.js';

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
    .action(async (options: ServeOptions) => {
      try {
        await serve(options);
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
