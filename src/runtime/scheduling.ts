// How a model's requests are batched and scheduled: options checked, and written out as numbers for the
// native scheduler.
import { availableParallelism } from 'node:os';
import type { NativePolicy } from '../native.js';
import { bytesPerElement, viewBits } from '../tensor.js';
import type { BatchingOptions, PadRule } from '../types/batching.js';
import type { ModelOptions } from '../types/model-options.js';
import type { ValueMetadata } from '../types/value.js';
import { failOption, knownOptions, wholeOption } from '../options/validate.js';
import { deviceRows, gpuLanes } from './gpu-options.js';

/** Rows of a batch when a latency target is to choose, and nothing else limits it. */
const TARGET_MAX_BATCH = 128;

/** Lanes unless told otherwise: a batch uses a processor well, and leaves one to bring the next. */
export function defaultLanes(threads: number, batches: boolean): number {
  const side = Math.max(1, Math.floor(availableParallelism() / Math.max(1, threads)));
  return batches ? Math.max(1, side - 1) : side;
}

/** Rows of a batch at most. */
export function mostRows({ maxBatch, targetP99Ms }: BatchingOptions): number {
  return maxBatch ?? (targetP99Ms === undefined ? 1 : TARGET_MAX_BATCH);
}

/** Checks `batching`; undefined is no batching. */
export function checkBatching(batching: ModelOptions['batching']): BatchingOptions | undefined {
  if (batching === undefined || batching === false || batching === 'auto') return undefined;
  if (typeof batching !== 'object' || batching === null || Array.isArray(batching)) {
    failOption('batching', "an object, false or 'auto'", batching);
  }
  const known = [
    'maxBatch',
    'maxDelayUs',
    'preferredSizes',
    'targetP99Ms',
    'preserveOrder',
    'padding',
    'padValues',
  ];
  knownOptions('batching.', batching, known);
  if (batching.maxBatch !== undefined) wholeOption('batching.maxBatch', batching.maxBatch, 1);
  if (batching.maxDelayUs !== undefined) wholeOption('batching.maxDelayUs', batching.maxDelayUs, 0);
  if (batching.preserveOrder !== undefined && typeof batching.preserveOrder !== 'boolean') {
    failOption('batching.preserveOrder', 'true or false', batching.preserveOrder);
  }
  const target = batching.targetP99Ms;
  if (target !== undefined && !(typeof target === 'number' && target > 0 && target < 1e6)) {
    failOption('batching.targetP99Ms', 'milliseconds above 0', target);
  }
  const sizes = batching.preferredSizes ?? [];
  if (!Array.isArray(sizes))
    failOption('batching.preferredSizes', 'an array of whole numbers', sizes);
  for (const size of sizes) {
    wholeOption('batching.preferredSizes', size, 1);
    if (batching.maxBatch !== undefined && size > batching.maxBatch) {
      failOption('batching.preferredSizes', `sizes up to maxBatch (${batching.maxBatch})`, size);
    }
  }
  for (const [symbol, rule] of Object.entries(batching.padding ?? {})) {
    const where = `batching.padding.${symbol}`;
    if ('sizes' in rule) {
      if (!Array.isArray(rule.sizes) || rule.sizes.length === 0) {
        failOption(`${where}.sizes`, 'an array of whole numbers', rule.sizes);
      }
      for (const size of rule.sizes) wholeOption(`${where}.sizes`, size, 1);
    } else {
      wholeOption(`${where}.multipleOf`, (rule as { multipleOf?: unknown }).multipleOf, 1);
    }
  }
  for (const [input, value] of Object.entries(batching.padValues ?? {})) {
    if (typeof value !== 'number') failOption(`batching.padValues.${input}`, 'a number', value);
  }
  return batching;
}

/** An element's bytes. */
function elementBytes(input: ValueMetadata, value: number): Uint8Array {
  if (input.dtype === 'string' || input.kind !== 'tensor') {
    failOption(`batching.padValues.${input.name}`, 'an input of numbers', input.kind);
  }
  const buffer = new ArrayBuffer(8);
  const size = bytesPerElement(input.dtype);
  const element = viewBits(input.dtype, buffer, 0, size) as unknown as (number | bigint)[];
  if (input.dtype === 'float16' || input.dtype === 'bfloat16') {
    if (value !== 0) {
      failOption(`batching.padValues.${input.name}`, `0, as the input is ${input.dtype}`, value);
    }
  } else {
    element[0] = input.dtype === 'int64' || input.dtype === 'uint64' ? BigInt(value) : value;
  }
  return new Uint8Array(buffer);
}

function padRule([symbol, rule]: [string, PadRule]): NativePolicy['padding'][number] {
  return 'sizes' in rule
    ? { symbol, sizes: [...rule.sizes].sort((a, b) => a - b), multiple: 0 }
    : { symbol, sizes: [], multiple: rule.multipleOf };
}

/** The numbers for the scheduler of a model with these inputs. */
export function nativePolicy(
  options: Pick<ModelOptions, 'threads' | 'lanes' | 'maxQueue' | 'weight' | 'batching' | 'gpu'>,
  inputs: readonly ValueMetadata[],
  onGpu: boolean,
): NativePolicy {
  const batching = checkBatching(options.batching) ?? {};
  const weight = options.weight ?? 1;
  if (!(typeof weight === 'number' && weight > 0 && weight <= 1e6)) {
    failOption('weight', 'a number above 0', weight);
  }
  const target = batching.targetP99Ms;
  const maxBatch = mostRows(batching);
  // Until it was measured how many rows pay, runs have the rows that they are measured with.
  const isOpen =
    options.batching === 'auto' ||
    (Boolean(options.batching) && batching.maxBatch === undefined && target === undefined);
  const symbols = new Set(inputs.flatMap(({ shape }) => shape.slice(1)));
  for (const symbol of Object.keys(batching.padding ?? {})) {
    if (!symbols.has(symbol)) {
      failOption(
        'batching.padding',
        `dynamic dimensions of the inputs (${[...symbols].filter((s) => typeof s === 'string').join(', ') || 'there are none'})`,
        symbol,
      );
    }
  }
  const padValues = Object.entries(batching.padValues ?? {}).map(([name, value]) => {
    const input = inputs.findIndex((candidate) => candidate.name === name);
    if (input < 0) failOption('batching.padValues', 'names of inputs', name);
    return { input, bytes: elementBytes(inputs[input]!, value) };
  });
  const threads = options.threads ?? 1;
  return {
    lanes:
      options.lanes ??
      (onGpu
        ? gpuLanes(options.gpu)
        : defaultLanes(threads || availableParallelism(), maxBatch > 1)),
    maxQueue: options.maxQueue ?? 1024,
    computeThreads: threads || availableParallelism(),
    weight,
    maxBatch,
    maxDelayUs: batching.maxDelayUs ?? 0,
    preferredSizes: [...(batching.preferredSizes ?? [])].sort((a, b) => a - b),
    targetP99Us: target === undefined ? 0 : Math.round(target * 1000),
    preserveOrder: batching.preserveOrder ?? false,
    deviceRows: onGpu && !isOpen ? deviceRows(options.gpu, { ...batching, maxBatch }) : [],
    padding: Object.entries(batching.padding ?? {}).map(padRule),
    padValues,
  };
}
