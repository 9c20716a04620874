// tercel bench: what models cost, in this process or on a server.
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { Command, Option } from 'commander';
import { TercelError } from '../errors.js';
import {
  machineLine,
  pointTable,
  runBench,
  type BenchDocument,
  type BenchPlan,
  type Progress,
} from '../measure/index.js';
import { calls } from '../measure/bench/in-process.js';
import { protocols } from '../measure/load/servers.js';
import { compareCommand } from './bench-compare.js';
import { reportCommand } from './bench-report.js';
import { choices, duration, mayWrite, numbers, pairs, part, wholeNumber } from './options.js';

const collect = (text: string, before: string[] = []): string[] => [...before, text];

interface Flags {
  url?: string;
  protocol: (typeof protocols)[number];
  modelVersion?: string;
  json?: true;
  header?: string[];
  concurrency?: number[];
  rate?: number[];
  arrivals: 'constant' | 'poisson';
  connections?: number;
  batch?: number[];
  threads?: number[];
  lanes?: number[];
  provider?: string;
  precision?: string;
  spinning: ('on' | 'off')[];
  call: (typeof calls)[number][];
  input?: Record<string, string>;
  shape?: Record<string, string>;
  dim?: Record<string, string>;
  duration: number;
  rounds: number;
  launches?: number;
  warmUp: number;
  stability: number;
  seed: number;
  floor: boolean;
  fit?: true;
  maxP99?: number;
  label?: string;
  output?: string;
  quiet?: true;
}

/** A line that says how far it is, overwritten where there is a terminal. */
class ProgressLine {
  readonly #on: boolean;
  readonly #isTerminal = process.stderr.isTTY;

  constructor(on: boolean) {
    this.#on = on;
  }

  show({ point, phase, done, of, round }: Progress): void {
    if (!this.#on) return;
    const figures = round
      ? `${round.throughput.toPrecision(4)}/s, p50 ${(round.p50Us / 1000).toPrecision(3)} ms, p99 ${(round.p99Us / 1000).toPrecision(3)} ms`
      : 'warming up';
    const more = done > of ? ', again as the rounds do not agree yet' : '';
    const line = `[${done}/${of}${more}] ${point.id}: ${figures}`;
    if (this.#isTerminal)
      process.stderr.write(`\r\x1b[K${line.slice(0, process.stderr.columns - 1)}`);
    else if (phase === 'measure') process.stderr.write(`${line}\n`);
  }

  end(): void {
    if (this.#on && this.#isTerminal) process.stderr.write('\r\x1b[K');
  }
}

function shapeOf(text: string, name: string): number[] {
  const dims = text.split(/[x,]/).map(Number);
  if (dims.some((dim) => !Number.isSafeInteger(dim) || dim < 0)) {
    throw new TercelError(
      'INVALID_INPUT',
      `--shape ${name}: expected a shape such as 1x3x224x224, got "${text}"`,
    );
  }
  return dims;
}

function planOf(models: string[], flags: Flags): BenchPlan {
  const dimensionLists = Object.fromEntries(
    Object.entries(flags.dim ?? {}).map(([name, value]) => [name, shapeOf(value, name)]),
  );
  const dimensions = Object.fromEntries(
    Object.entries(dimensionLists).map(([name, values]) => [name, values[0]!]),
  );
  const shapes = Object.fromEntries(
    Object.entries(flags.shape ?? {}).map(([name, value]) => [name, shapeOf(value, name)]),
  );
  return {
    models,
    server:
      flags.url === undefined
        ? undefined
        : {
            url: flags.url,
            protocol: flags.protocol,
            version: flags.modelVersion,
            json: flags.json ?? false,
            headers: headersOf(flags.header ?? []),
            connections: flags.connections,
          },
    arrivals: [
      ...(flags.concurrency ?? (flags.rate ? [] : [1])).map((concurrency) => ({
        kind: 'closed' as const,
        concurrency,
      })),
      ...(flags.rate ?? []).map((rate) => ({ kind: flags.arrivals, rate })),
    ],
    batch: flags.batch,
    threads: flags.threads,
    lanes: flags.lanes,
    providers: flags.provider?.split(',').map((list) => list.split('+')),
    precisions: flags.precision?.split(','),
    spinning: flags.spinning.map((value) => value === 'on'),
    calls: flags.call,
    dimensionLists,
    inputs: { dimensions, shapes, files: flags.input ?? {} },
    withReference: flags.floor,
    fit: flags.fit ?? false,
    maxP99Ms: flags.maxP99,
    label: flags.label ?? '',
    command: withoutSecrets(process.argv.slice(2)),
    run: {
      durationMs: flags.duration,
      rounds: flags.rounds,
      launches: flags.launches ?? Math.min(10, flags.rounds),
      warmUpMs: flags.warmUp,
      stability: flags.stability,
      seed: flags.seed,
    },
  };
}

/** Results are shared: what is behind --header, or in a URL, is not. */
function withoutSecrets(words: readonly string[]): string[] {
  return words.map((word, i) => {
    if (words[i - 1] === '--header') return '***';
    if (word.startsWith('--header=')) return '--header=***';
    return word.replace(/\/\/[^/@]*@/, '//***@');
  });
}

function headersOf(lines: string[]): Record<string, string> {
  return Object.fromEntries(
    lines.map((line) => {
      const at = line.indexOf(':');
      if (at < 1)
        throw new TercelError('INVALID_INPUT', `--header: expected "Name: value", got "${line}"`);
      return [line.slice(0, at).trim().toLowerCase(), line.slice(at + 1).trim()];
    }),
  );
}

/** Ends the command with one sentence and the exit code for what was asked wrongly or cannot be done. */
export function fail(command: string, error: unknown): never {
  console.error(`${command}: ${(error as Error).message}`);
  process.exit(2);
}

function summary(document: BenchDocument): void {
  console.log(machineLine(document.machine));
  console.log(pointTable(document));
}

export function benchCommand(): Command {
  return new Command('bench')
    .description('Measure models in this process, or on any server of their protocols')
    .enablePositionalOptions()
    .usage('[options] <models...>')
    .argument('[models...]', 'model files; with --url, names of models on the server')
    .option('--url <url>', 'a server instead of this process, such as http://127.0.0.1:8000')
    .addOption(
      new Option('--protocol <name>', 'what the server speaks')
        .choices(protocols)
        .default('oip-http'),
    )
    .option('--model-version <version>', 'of the model on the server')
    .option('--json', 'oip-http: numbers in the JSON rather than behind it')
    .option(
      '--header <line>',
      'sent with each request, as in "Authorization: Bearer ..."; may be given again',
      collect,
    )
    .option(
      '--concurrency <numbers>',
      'closed loop: requests at a time, as 1,8,64 or 1..64 (default: 1)',
      numbers,
    )
    .option(
      '--rate <numbers>',
      'open loop: requests a second; latency counts from when they were due',
      numbers,
    )
    .addOption(
      new Option('--arrivals <kind>', 'of an open loop')
        .choices(['constant', 'poisson'])
        .default('poisson'),
    )
    .option(
      '--connections <number>',
      'HTTP connections of an open loop (default: 128)',
      wholeNumber,
    )
    .option('--batch <numbers>', 'rows of a request (default: 1)', numbers)
    .option('--threads <numbers>', 'threads of one run (default: 1)', numbers)
    .option(
      '--lanes <numbers>',
      'runs side by side (default: as many as processors / threads)',
      numbers,
    )
    .option('--provider <names>', 'execution providers; a+b is a with b behind it')
    .option(
      '--precision <names>',
      'variants of the model file, as fp16 for model.fp16.onnx; "as-is" for the file itself',
    )
    .option(
      '--spinning <on,off>',
      "ONNX Runtime's workers spin between runs",
      choices(['on', 'off'] as const),
      ['off'],
    )
    .option('--call <names>', `how the model is called: ${calls.join(', ')}`, choices(calls), [
      'run',
    ])
    .option(
      '--input <name=file>',
      '.npy, .npz, .json or an image instead of random numbers; may be given again',
      pairs,
    )
    .option('--shape <name=shape>', "an input's, as 1x3x224x224; may be given again", pairs)
    .option(
      '--dim <name=size>',
      "a dynamic dimension's, with --fit several, as seq=16,64; may be given again",
      pairs,
    )
    .option('--duration <time>', 'of one window', duration, 500)
    .option(
      '--rounds <number>',
      'windows of each point at least; twice as many where they do not agree',
      wholeNumber,
      20,
    )
    .option(
      '--launches <number>',
      'processes that share the rounds of models in this process (default: 10)',
      wholeNumber,
    )
    .option(
      '--warm-up <time>',
      'of each point at most: it ends when its windows agree',
      duration,
      5000,
    )
    .option('--stability <part>', 'within which windows agree', part, 0.05)
    .option('--seed <number>', 'of random inputs and arrivals', wholeNumber, 1)
    .option('--no-floor', 'do not measure the bare C loop beside each point')
    .option(
      '--fit',
      'measure response time over input size, batch and threads, and fit a cost model',
    )
    .option(
      '--max-p99 <time>',
      'with --fit: the bound within which throughput is to be highest',
      duration,
    )
    .option('--label <text>', 'what reports call these results')
    .option('-o, --output <file>', 'write the results as JSON')
    .option('--quiet', 'no progress')
    .addHelpText(
      'after',
      `
Examples:
  tercel bench model.onnx --concurrency 1,8 --threads 1,2 -o here.json
  tercel bench --url http://127.0.0.1:8000 digits --rate 100,1000 --arrivals poisson
  tercel bench compare before.json after.json --fail-above 5%
  tercel bench report here.json -o here.html

Ctrl-C ends the run and writes what is there. Exit codes: 0 done, 1 worse than --fail-above, 2 it could
not be done (what was measured by then is written all the same), 130 interrupted.`,
    )
    .addCommand(compareCommand())
    .addCommand(reportCommand())
    .action(async (models: string[], flags: Flags, command: Command) => {
      if (models.length === 0)
        command.error(
          'tercel bench: which model? Name a file, or with --url a model on the server',
          { exitCode: 2 },
        );
      // Before hours of measuring, not after.
      mayWrite('tercel bench', flags.output);
      const line = new ProgressLine(!flags.quiet);
      const interrupt = new AbortController();
      let interrupted = false;
      const onInterrupt = (): void => {
        if (interrupted) process.exit(130); // the second time, at once
        interrupted = true;
        interrupt.abort();
      };
      process.on('SIGINT', onInterrupt);
      process.on('SIGTERM', onInterrupt);
      try {
        const { document, failure } = await runBench(
          planOf(models, flags),
          interrupt.signal,
          (progress) => line.show(progress),
        );
        line.end();
        summary(document);
        if (flags.output !== undefined) {
          writeFileSync(flags.output, JSON.stringify(document) + '\n');
          console.log(`results: ${path.resolve(flags.output)}`);
        }
        if (failure) fail('tercel bench', failure);
        if (interrupted) process.exit(130);
      } catch (error) {
        line.end();
        if (interrupted) {
          console.error('tercel bench: interrupted before anything was measured');
          process.exit(130);
        }
        fail('tercel bench', error);
      }
    });
}
