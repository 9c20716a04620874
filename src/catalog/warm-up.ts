// Warm-up: samples for a model's first runs, and the batching that they show to pay.
import { availableParallelism } from 'node:os';
import { InvalidInputError } from '../errors.js';
import type { NativeSample } from '../native.js';
import { bytesPerElement, countElements, dtypeCodes } from '../tensor.js';
import type { BatchingOptions } from '../types/batching.js';
import type { GpuOptions } from '../types/gpu.js';
import type { ValueMetadata } from '../types/value.js';
import type { WarmUpSample } from '../types/warm-up.js';
import { bucketSizes, deviceRows } from '../runtime/gpu-options.js';
import type { Model } from '../runtime/model.js';
import { checkBatching, defaultLanes, mostRows } from '../runtime/scheduling.js';

/** What dynamic dimensions behind the first are tried with where nothing says: the first that runs. */
const GUESSED_DIMENSIONS = [64, 224, 16, 1];
/** Rows that a run is measured with, to see whether batches pay. */
const TRIED_ROWS = [4, 16, 32, 64];
/** A batch must raise throughput so much; a larger one at all. */
const WORTH_BATCHING = 1.15;
const WORTH_MORE = 1;
/**
 * Shorter runs need a processor for the JS thread that brings the requests: that takes some 20 us of each
 * (bench/http.ts). Longer ones keep all lanes, and batches cost them nothing then: the MiniLM-like model
 * does 224 requests a second with two lanes, as many with one lane and batches, 252 with both.
 */
const LONG_RUN_NS = 500_000;
const WORTH_BATCHING_LONG_RUNS = 1.05;
/** Runs of a larger batch than this are not tried: nobody wants to wait for them. */
const LONGEST_TRIED_MS = 250;
const BUDGET_MS = 150;

/** How the model is to be scheduled; without lanes, with as many as usual. */
export interface Decided {
  batching: BatchingOptions | false;
  lanes: number | undefined;
}

/** Random numbers that are good for ids and masks as well: whole numbers are 0 or 1. */
function fill(dtype: ValueMetadata['dtype'], bytes: Uint8Array, count: number): void {
  const view = new DataView(bytes.buffer);
  for (let i = 0; i < count; i++) {
    const value = Math.random();
    if (dtype === 'float32') view.setFloat32(i * 4, value * 2 - 1, true);
    else if (dtype === 'float64') view.setFloat64(i * 8, value * 2 - 1, true);
    else if (dtype === 'float16') view.setUint16(i * 2, 0x3800 | Math.floor(value * 0x400), true);
    else if (dtype === 'bfloat16') view.setUint16(i * 2, 0x3f00 | Math.floor(value * 0x80), true);
    else if (value > 0.5) bytes[i * bytesPerElement(dtype)] = 1;
  }
}

/** One sample for native code; shapes without dynamic dimensions. */
function nativeSample(
  inputs: readonly ValueMetadata[],
  shapes: readonly number[][],
  data: 'zero' | 'random',
  given: Readonly<Record<string, Uint8Array>> = {},
): NativeSample {
  return inputs.map((input, index) => {
    const dims = shapes[index]!;
    const count = countElements(dims);
    const bytes = new Uint8Array(count * bytesPerElement(input.dtype));
    const own = given[input.name];
    if (own) {
      if (own.length !== bytes.length) {
        throw new InvalidInputError(
          `warm-up: input "${input.name}" of shape [${dims.join()}] needs ${bytes.length} bytes, ${own.length} were given`,
        );
      }
      bytes.set(own);
    } else if (data === 'random' && input.dtype !== 'string') {
      // Two rows, and these again and again: numbers made one by one hold up the event loop.
      const part = Math.min(count, (count / Math.max(1, dims[0] ?? 1)) * 2);
      fill(input.dtype, bytes, part);
      const made = part * bytesPerElement(input.dtype);
      for (let at = made; at < bytes.length && made > 0; at += made) {
        bytes.copyWithin(at, 0, Math.min(made, bytes.length - at));
      }
    }
    return { input: index, dtype: dtypeCodes[input.dtype], dims, bytes };
  });
}

function shapesFor(
  inputs: readonly ValueMetadata[],
  rows: number,
  dimension: (symbol: string) => number,
): number[][] {
  return inputs.map(({ shape }) =>
    shape.map((dim, axis) =>
      typeof dim === 'number' ? dim : axis === 0 && rows > 0 ? rows : dimension(dim),
    ),
  );
}

/** Whether all inputs and outputs share one named first dimension: the rows of a batch. */
export function hasRows(model: Pick<Model, 'inputs' | 'outputs'>): boolean {
  const first = model.inputs[0]?.shape[0];
  return (
    typeof first === 'string' &&
    first !== '' &&
    [...model.inputs, ...model.outputs].every(
      ({ kind, dtype, shape }) => kind === 'tensor' && dtype !== 'string' && shape[0] === first,
    )
  );
}

function canBeMadeUp(model: Model): boolean {
  return model.inputs.every((input) => input.kind === 'tensor' && input.dtype in dtypeCodes);
}

function dimensionChoices(batching: BatchingOptions): ((symbol: string) => number)[] {
  // A padded dimension comes in these sizes only.
  const padded = Object.entries(batching.padding ?? {}).map(([symbol, rule]) => ({
    symbol,
    sizes: 'sizes' in rule ? rule.sizes : [rule.multipleOf],
  }));
  if (padded.length === 0) return [];
  const most = Math.max(...padded.map(({ sizes }) => sizes.length));
  return Array.from({ length: most }, (_, i) => (symbol: string) => {
    const rule = padded.find((candidate) => candidate.symbol === symbol);
    return rule ? rule.sizes[Math.min(i, rule.sizes.length - 1)]! : GUESSED_DIMENSIONS[0]!;
  });
}

/**
 * Runs the samples that the configuration names.
 *
 * @throws as Model.warmUp(), naming the sample
 */
async function warmGiven(
  model: Model,
  samples: readonly WarmUpSample[],
  throttle: boolean,
): Promise<void> {
  const list: NativeSample[] = [];
  for (const sample of samples) {
    for (const name of [
      ...Object.keys(sample.shapes ?? {}),
      ...Object.keys(sample.dimensions ?? {}),
    ]) {
      const known = model.inputs.some((input) => input.name === name || input.shape.includes(name));
      if (!known) {
        throw new InvalidInputError(`warm-up: the model has no input or dimension "${name}"`);
      }
    }
    const shapes = shapesFor(model.inputs, sample.batch ?? 0, (symbol) => {
      return sample.dimensions?.[symbol] ?? sample.batch ?? 1;
    }).map((shape, i) => {
      const own = sample.shapes?.[model.inputs[i]!.name];
      return own ? (own.length < shape.length ? [sample.batch ?? 1, ...own] : [...own]) : shape;
    });
    list.push(nativeSample(model.inputs, shapes, sample.data ?? 'random', sample.inputs));
  }
  const repeat = Math.max(1, ...samples.map((sample) => sample.count ?? 1));
  await model.warmUp(list, { repeat, budgetMs: 60_000, throttle });
}

/** Runs every size of batch once, on data made up. Best effort: without it the model serves as well. */
async function warmBuckets(
  model: Model,
  batching: BatchingOptions,
  gpu: GpuOptions | undefined,
  dimension: (symbol: string) => number,
  throttle: boolean,
): Promise<void> {
  const sizes = new Set(bucketSizes(batching));
  if (model.onGpu) for (const rows of deviceRows(gpu, batching)) sizes.add(rows);
  // The largest first: memory on a GPU is then taken once.
  const ordered = [...sizes].sort((a, b) => b - a);
  const choices = dimensionChoices(batching);
  if (choices.length === 0) choices.push(dimension);
  for (const choice of choices) {
    const samples = ordered.map((rows) =>
      nativeSample(model.inputs, shapesFor(model.inputs, rows, choice), 'random'),
    );
    await model.warmUp(samples, { repeat: 1, budgetMs: 10_000, throttle });
  }
}

/** The first guess of the dynamic dimensions with which the model runs, and what one row takes. */
async function probe(
  model: Model,
  throttle: boolean,
): Promise<{ dimension: (symbol: string) => number; oneNs: number } | undefined> {
  const isDynamic = model.inputs.some(({ shape }) =>
    shape.some((dim, axis) => typeof dim === 'string' && axis > 0),
  );
  for (const guess of isDynamic ? GUESSED_DIMENSIONS : [1]) {
    const dimension = (): number => guess;
    const one = nativeSample(model.inputs, shapesFor(model.inputs, 1, dimension), 'random');
    try {
      const { runNs } = await model.warmUp([one], { repeat: 20, budgetMs: 30, throttle });
      return { dimension, oneNs: runNs[0]! };
    } catch {
      // The guess does not fit the model.
    }
  }
  return undefined;
}

/** The batch that raises the throughput of one lane most, from runs on random data; 1 where none does. */
async function measureBatch(
  model: Model,
  dimension: (symbol: string) => number,
  oneNs: number,
  throttle: boolean,
): Promise<number> {
  const sample = (rows: number): NativeSample =>
    nativeSample(model.inputs, shapesFor(model.inputs, rows, dimension), 'random');
  const rows = TRIED_ROWS.filter((n) => (n * oneNs) / 1e6 < LONGEST_TRIED_MS);
  if (rows.length === 0) return 1;
  try {
    // On a GPU the largest first: memory is taken once, and TensorRT builds for it at once.
    if (model.onGpu) rows.reverse();
    const { runNs, rowsIndependent } = await model.warmUp([sample(2), ...rows.map(sample)], {
      repeat: 8,
      budgetMs: BUDGET_MS,
      checkRows: true,
      throttle,
    });
    if (!rowsIndependent) return 1;
    if (model.onGpu) {
      rows.reverse();
      runNs.reverse();
    }
    let best = 1;
    let bestRate = 1 / oneNs;
    const worthBatching = oneNs > LONG_RUN_NS ? WORTH_BATCHING_LONG_RUNS : WORTH_BATCHING;
    rows.forEach((n, i) => {
      const rate = n / runNs[i]!;
      if (rate < bestRate * (best === 1 ? worthBatching : WORTH_MORE)) return;
      best = n;
      bestRate = rate;
    });
    return best;
  } catch {
    return 1;
  }
}

/**
 * Warms a model that was just loaded, and decides how it batches: as told, or with `batching: 'auto'` as
 * measured here. Returns what to configure.
 *
 * @throws InvalidInputError or RunError when a sample that was asked for does not run
 */
export async function warm(
  model: Model,
  options: {
    batching?: BatchingOptions | false | 'auto';
    warmUp?: readonly WarmUpSample[] | false;
    throttle?: boolean;
    /** As the model has them. */
    threads?: number | undefined;
    lanes?: number | undefined;
    gpu?: GpuOptions | undefined;
    /** Called with the decision before the last runs: on a GPU they make what it will need. */
    configure?: (decided: Decided) => void;
  },
): Promise<Decided> {
  const throttle = options.throttle ?? false;
  const asked = checkBatching(options.batching);
  const makesUp = options.warmUp === undefined && canBeMadeUp(model);
  const auto = options.batching === 'auto' || (asked && asked.maxBatch === undefined);
  const probed =
    makesUp || auto || (asked && options.lanes === undefined)
      ? await probe(model, throttle).catch(() => undefined)
      : undefined;
  let batching: BatchingOptions | false = asked ?? false;
  if (auto && asked?.targetP99Ms === undefined) {
    const pays =
      probed && hasRows(model)
        ? await measureBatch(model, probed.dimension, probed.oneNs, throttle)
        : 1;
    const preferredSizes = asked?.preferredSizes?.filter((size) => size <= pays);
    batching = pays > 1 || asked ? { ...asked, preferredSizes, maxBatch: pays } : false;
  }
  let { lanes } = options;
  const isLong = probed !== undefined && probed.oneNs > LONG_RUN_NS;
  if (lanes === undefined && isLong && !asked?.targetP99Ms && !model.onGpu) {
    const { threads = 1 } = options;
    lanes = defaultLanes(threads || availableParallelism(), false);
  }
  const decided = { batching, lanes };
  if (model.onGpu) options.configure?.(decided);
  const batches = batching ? { ...batching } : {};
  // On a GPU each size is slow the first time, also where a target is to choose among them.
  if (model.onGpu) batches.maxBatch = mostRows(batches);
  const isPrepared = (batches.maxBatch ?? 1) > 1 || (model.onGpu && options.gpu?.graphs);
  if (options.warmUp) {
    await warmGiven(model, options.warmUp, throttle);
  } else if (makesUp && probed && isPrepared) {
    await warmBuckets(model, batches, options.gpu, probed.dimension, throttle).catch(
      () => undefined,
    );
  }
  return decided;
}
