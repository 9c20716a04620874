// The results of `tercel bench`, as one JSON document. Its JSON Schema is schema/bench.schema.json.
import { readFileSync } from 'node:fs';
import { z } from 'zod';
import { InvalidInputError } from '../../errors.js';

const number = z.number();
const count = z.number().int().min(0);

const machine = z.object({
  id: z.string().describe('same id, same hardware and limits'),
  cpu: z.object({
    model: z.string(),
    available: count,
    logical: count,
    physical: count,
    mhz: number,
    simd: z.array(z.string()),
    caches: z.array(z.string()),
    governor: z.string().nullable(),
  }),
  memoryBytes: number,
  gpus: z.array(z.object({ name: z.string(), driver: z.string(), memoryBytes: number })),
  os: z.object({
    platform: z.string(),
    release: z.string(),
    arch: z.string(),
    hypervisor: z.boolean(),
  }),
  container: z.object({ cpus: number.nullable(), memoryBytes: number.nullable() }),
  libraries: z.object({
    tercel: z.string(),
    node: z.string(),
    v8: z.string(),
    onnxruntime: z.string().nullable(),
  }),
});

const round = z
  .object({
    launch: count.optional().describe('the process that it was in, where there were several'),
    startedMs: number.describe('since the beginning of the whole run'),
    durationMs: number,
    completed: count.describe('good answers'),
    throughput: number.describe('inferences a second: rows of good answers within the duration'),
    p50Us: number,
    p90Us: number,
    p99Us: number,
    p999Us: number,
    maxUs: number,
    meanUs: number,
    cpuUsPerInference: number
      .nullable()
      .describe('processor time of this process; null for a server, which is another'),
    generatorCpu: number.nullable().describe('processors that the load generator used'),
    lateMs: number.describe('the most that the generator itself sent a request late'),
    errors: z.record(z.string(), count),
    unsent: count,
    unanswered: count,
    reference: number
      .nullable()
      .describe(
        'inferences a second of the bare C loop on the same settings, right before and after',
      ),
  })
  .describe('one stretch of load');

const point = z
  .object({
    id: z.string(),
    model: z.string(),
    settings: z
      .record(z.string(), z.union([z.string(), number, z.boolean()]))
      .describe('where the point lies in the sweep: batch, threads, lanes, concurrency, rate, ...'),
    rounds: z.array(round),
    latency: z
      .array(z.tuple([count, count]))
      .describe(
        'bucket and count, over all rounds; see src/measure/load/histogram.ts for the buckets',
      ),
    maxNs: number,
    peakMemoryBytes: number
      .nullable()
      .describe('the most resident memory of this process meanwhile'),
    warmUpMs: number,
    settled: z.boolean().describe('whether the warm-up windows came to agree'),
    stable: z.boolean().describe('whether the rounds agree within the bound'),
    firstError: z.string(),
  })
  .describe('one point of the sweep');

const prediction = z.object({
  batch: number,
  threads: number,
  p99Us: number,
  throughput: number,
});

const fit = z
  .object({
    model: z.string(),
    formula: z.string(),
    parameters: z.record(z.string(), number),
    points: z.array(
      z.object({
        d: number,
        batch: number,
        threads: number,
        measuredUs: number,
        fittedUs: number,
      }),
    ),
    medianError: number,
    worstError: number,
    bound: number.nullable().describe('of the latency, in microseconds'),
    predicted: prediction.nullable(),
    checked: prediction.nullable().describe('the same settings, measured'),
    bestMeasured: prediction
      .nullable()
      .describe('the best of the measured points inside the bound'),
  })
  .describe('response time as a function of input size, batch and threads');

export const benchDocument = z.object({
  format: z.literal('tercel-bench'),
  version: z.literal(1),
  created: z.string(),
  label: z.string(),
  command: z.array(z.string()),
  partial: z.boolean().describe('ended before it was complete'),
  machine,
  target: z.object({
    kind: z.enum(['in-process', 'server']),
    url: z.string().nullable(),
    protocol: z.string().nullable(),
  }),
  models: z.array(
    z.object({
      name: z.string(),
      source: z.string(),
      bytes: number.nullable(),
      sha256: z.string().nullable(),
    }),
  ),
  run: z.object({
    durationMs: number,
    rounds: count,
    launches: count,
    stability: number,
    warmUpMs: number,
    seed: number,
  }),
  points: z.array(point),
  fits: z.array(fit),
});

export type BenchDocument = z.infer<typeof benchDocument>;
export type BenchPoint = z.infer<typeof point>;
export type BenchRound = z.infer<typeof round>;
export type BenchFit = z.infer<typeof fit>;

/** For editors and other tools. */
export function benchJsonSchema(): object {
  return {
    ...z.toJSONSchema(benchDocument),
    title: 'Results of tercel bench',
  };
}

/**
 * Reads a document.
 *
 * @throws InvalidInputError naming the file, and the place in it that is wrong
 */
export function readBenchDocument(file: string): BenchDocument {
  let value: unknown;
  try {
    value = JSON.parse(readFileSync(file, 'utf8'));
  } catch (cause) {
    throw new InvalidInputError(`cannot read ${file}: ${(cause as Error).message}`, { cause });
  }
  const read = benchDocument.safeParse(value);
  if (read.success) return read.data;
  const [issue] = read.error.issues;
  const where = issue!.path.join('.');
  throw new InvalidInputError(
    `${file} holds no results of tercel bench: ${where ? `${where}: ` : ''}${issue!.message}`,
  );
}
