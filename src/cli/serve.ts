// tercel serve: parses, prints, starts and stops.
import { Command, InvalidArgumentError } from 'commander';
import { createEngine, scanRepository } from '../engine/engine.js';
import { TercelError } from '../errors.js';
import { createServer } from '../server/server.js';

interface ServeFlags {
  models: string;
  host: string;
  httpPort: number;
  threads: number;
  lanes?: number;
  bodyLimit: number;
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

/** How long requests in flight may take after the first signal. */
const GRACE_MS = 10_000;

async function serve(flags: ServeFlags): Promise<void> {
  const engine = createEngine();
  const entries = scanRepository(flags.models);
  if (entries.length === 0) {
    throw new Error(
      `no model in "${flags.models}": expected <name>/<version>/model.onnx below it, as in digits/1/model.onnx`,
    );
  }
  await engine.loadRepository(
    flags.models,
    { threads: flags.threads, ...(flags.lanes && { lanes: flags.lanes }) },
    ({ name, version }, ms) =>
      console.log(`loaded ${name} version ${version} in ${ms.toFixed(0)} ms`),
  );
  const app = createServer(engine, {
    bodyLimitBytes: flags.bodyLimit,
    ...(flags.verbose && { logger: true }),
  });

  let stopping = false;
  const stop = (signal: NodeJS.Signals): void => {
    if (stopping) process.exit(130); // asked twice
    stopping = true;
    console.log(`${signal}: finishing requests in flight`);
    setTimeout(() => process.exit(1), GRACE_MS).unref();
    void app.close().then(() => engine.close());
  };
  process.on('SIGINT', stop);
  process.on('SIGTERM', stop);

  const address = await app.listen({ host: flags.host, port: flags.httpPort });
  console.log(`serving ${engine.names().join(', ')} at ${address}`);
}

export function serveCommand(): Command {
  return new Command('serve')
    .description('Serve the models of a repository by the Open Inference Protocol v2')
    .requiredOption('--models <folder>', 'the repository: <name>/<version>/model.onnx')
    .option('--host <address>', 'address to listen on', '127.0.0.1')
    .option('--http-port <port>', 'port of the REST endpoint; 0 picks one', whole(0, 65535), 8000)
    .option('--threads <n>', 'threads inside one run', whole(1, 1024), 1)
    .option('--lanes <n>', 'runs side by side per model (default: cores / threads)', whole(1, 1024))
    .option('--body-limit <bytes>', 'largest request body', whole(1, 2 ** 31 - 1), 64 * 1024 * 1024)
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
