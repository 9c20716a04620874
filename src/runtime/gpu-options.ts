// How a model runs on a GPU: options checked, and written out for the providers and the scheduler.
import type { NativeLoadOptions } from '../native.js';
import type { BatchingOptions } from '../types/batching.js';
import type { GpuOptions } from '../types/gpu.js';
import type { ModelOptions } from '../types/model-options.js';
import { failOption, knownOptions, wholeOption } from '../options/validate.js';

const DEFAULT_SLOTS = 2;

type Provider = NativeLoadOptions['providers'][number];

const isCuda = (name: string): boolean => /^cuda(plugin)?(executionprovider)?$/i.test(name);
/** Whether it names TensorRT's provider. */
export const isTensorRt = (name: string): boolean => /^tensorrt(executionprovider)?$/i.test(name);

const arenaStrategies = {
  'same-as-requested': 'kSameAsRequested',
  'next-power-of-two': 'kNextPowerOfTwo',
} as const;
const precisions = ['fp32', 'fp16', 'bf16', 'int8'] as const;

const fail = (name: string, expected: string, got: unknown): never =>
  failOption(`gpu.${name}`, expected, got);

function whole(name: string, value: unknown, least: number, most?: number): void {
  if (value !== undefined) wholeOption(`gpu.${name}`, value, least, most);
}

/** @throws InvalidInputError naming the option and what was expected */
export function checkGpu(gpu: GpuOptions | undefined): void {
  if (gpu === undefined) return;
  const known = [
    'device',
    'memoryLimit',
    'arenaStrategy',
    'slots',
    'graphs',
    'precision',
    'engineCache',
  ];
  knownOptions('gpu.', gpu, known, ['standIn']);
  whole('device', gpu.device, 0, 0xffff);
  whole('memoryLimit', gpu.memoryLimit, 1, Number.MAX_SAFE_INTEGER);
  whole('slots', gpu.slots, 0, 64);
  const { arenaStrategy, precision, graphs, engineCache } = gpu;
  if (arenaStrategy !== undefined && !Object.hasOwn(arenaStrategies, arenaStrategy)) {
    fail('arenaStrategy', Object.keys(arenaStrategies).join(' or '), arenaStrategy);
  }
  if (precision !== undefined && !precisions.includes(precision)) {
    fail('precision', precisions.join(', '), precision);
  }
  if (graphs !== undefined && typeof graphs !== 'boolean') {
    if (!Array.isArray(graphs) || graphs.length === 0) {
      fail('graphs', 'true, false or an array of batch sizes', graphs);
    }
    for (const size of graphs as readonly unknown[]) whole('graphs', size, 1);
  }
  if (gpu.slots === 0 && graphs) fail('graphs', 'false where slots is 0', graphs);
  if (
    engineCache !== undefined &&
    engineCache !== false &&
    (typeof engineCache !== 'string' || engineCache === '')
  ) {
    fail('engineCache', 'a folder or false', engineCache);
  }
}

/**
 * Adds what the options say and the provider was not told by its own name. `among`: names of all. A graph
 * is of one provider: with TensorRT in front, ONNX Runtime would refuse the session.
 */
export function gpuProvider(
  provider: Provider,
  gpu: GpuOptions,
  among: readonly string[],
): Provider {
  const own: Record<string, string> = {};
  const cuda = isCuda(provider.name);
  const tensorRt = isTensorRt(provider.name);
  if (cuda || tensorRt) {
    if (gpu.device !== undefined) own['device_id'] = String(gpu.device);
  }
  if (cuda) {
    if (gpu.memoryLimit !== undefined) own['gpu_mem_limit'] = String(gpu.memoryLimit);
    if (gpu.arenaStrategy) own['arena_extend_strategy'] = arenaStrategies[gpu.arenaStrategy];
    if (gpu.graphs && !among.some(isTensorRt)) own['enable_cuda_graph'] = '1';
  }
  if (tensorRt && gpu.precision && gpu.precision !== 'fp32') {
    own[`trt_${gpu.precision}_enable`] = '1';
  }
  const { options } = provider;
  const given = new Set(options.filter((_, i) => i % 2 === 0));
  const added = Object.entries(own).filter(([key]) => !given.has(key));
  return added.length > 0 ? { ...provider, options: [...options, ...added.flat()] } : provider;
}

/** What native code wants to know besides the providers' options. */
export function gpuLoadOptions(
  options: ModelOptions,
): Pick<NativeLoadOptions, 'lanesGiven' | 'gpuSlots' | 'gpuStandIn' | 'gpuStandInGraphs'> {
  const gpu: GpuOptions & { standIn?: boolean } = options.gpu ?? {};
  return {
    lanesGiven: options.lanes !== undefined,
    gpuSlots: gpu.slots ?? DEFAULT_SLOTS,
    gpuStandIn: gpu.standIn ?? false,
    gpuStandInGraphs: Boolean(gpu.graphs),
  };
}

/** Lanes of a model on a GPU, unless told otherwise: as many runs as are in flight. */
export function gpuLanes(gpu: GpuOptions | undefined): number {
  return Math.max(1, gpu?.slots ?? DEFAULT_SLOTS);
}

/** Powers of two up to `maxBatch`, and the preferred sizes: what batches the scheduler will form. */
export function bucketSizes({ maxBatch = 1, preferredSizes = [] }: BatchingOptions): number[] {
  const sizes = new Set([1, maxBatch, ...preferredSizes]);
  for (let size = 2; size < maxBatch; size *= 2) sizes.add(size);
  return [...sizes].sort((a, b) => a - b);
}

/**
 * Rows that a run on a GPU has: smaller batches are filled up to the next. A size that comes for the first
 * time is slow there (cuDNN tries its algorithms, a graph is captured), so few of them are to be warmed.
 * Without graphs, which take memory, there are sizes between the powers of two: less is computed for
 * nothing.
 */
export function deviceRows(gpu: GpuOptions | undefined, batching: BatchingOptions): number[] {
  const graphs = gpu?.graphs ?? false;
  if (graphs === true) return bucketSizes(batching);
  if (graphs !== false) return [...graphs].sort((a, b) => a - b);
  const sizes = new Set(bucketSizes(batching));
  for (let size = 3; size < (batching.maxBatch ?? 1); size *= 2) sizes.add(size);
  return [...sizes].sort((a, b) => a - b);
}
