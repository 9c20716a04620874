// Loads the addon: the only file that does, and that knows its shape.
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { errorFromNative, ModelError } from './errors.js';
import type { ProviderDevice } from './types/provider.js';

/** A declared type as the addon describes it. */
export interface NativeType {
  kind: number;
  dtype: number;
  hasShape: boolean;
  shape: (number | string)[];
  element?: NativeType;
  key?: number;
}

export interface NativeValue extends NativeType {
  name: string;
}

/** A piece of a GPU's memory; see native/addon/device_handle.h. */
export interface NativeDeviceBuffer {
  device: number;
  bytes: number;
  /** What bind() takes. */
  lease: object;
  /** As many bytes as the array has. */
  readSync(into: ArrayBufferView): void;
  writeSync(from: ArrayBufferView): void;
  /** The completion is an ArrayBuffer. */
  read(slot: number): void;
  write(slot: number, from: ArrayBufferView): void;
}

export interface NativeBoundValue {
  name: string;
  dtype: number;
  shape: number[];
  /** Neither for strings. */
  buffer?: ArrayBuffer;
  onDevice?: NativeDeviceBuffer;
}

/** What is asked of a binding's slot. */
export interface NativeValueRequest {
  shape?: readonly number[] | undefined;
  onDevice: boolean;
  lease?: object | undefined;
}

export interface NativeBinding {
  inputs: NativeBoundValue[];
  outputs: NativeBoundValue[];
  runSync: () => void;
  /** True when submitted to a lane; undefined when done already. */
  run(): true | undefined;
  setStrings(input: number, strings: readonly string[]): void;
  getStrings(output: number): string[];
  close(): void;
}

/** A model's policy; see ReadSchedulerOptions in native/addon/configure.cc. */
export interface NativePolicy {
  lanes: number;
  maxQueue: number;
  computeThreads: number;
  weight: number;
  maxBatch: number;
  maxDelayUs: number;
  preferredSizes: number[];
  targetP99Us: number;
  preserveOrder: boolean;
  /** On a GPU: what batches are filled up to, ascending. */
  deviceRows: number[];
  padding: { symbol: string; sizes: number[]; multiple: number }[];
  /** The bytes of one element by the input's index. */
  padValues: { input: number; bytes: Uint8Array }[];
}

/** The inputs of one warm-up run. */
export type NativeSample = { input: number; dtype: number; dims: number[]; bytes: Uint8Array }[];

export interface NativeModel {
  inputs: NativeValue[];
  outputs: NativeValue[];
  metadata: {
    producer: string;
    graph: string;
    description: string;
    version: number;
    custom: Record<string, string>;
  };
  providers: string[];
  onGpu: boolean;
  warnings: string[];
  /** Arguments and results travel as native/addon/values.h says. */
  runSync: (...data: unknown[]) => unknown;
  run: (...data: unknown[]) => unknown;
  bind(
    inputs: (NativeValueRequest | undefined)[],
    outputs: (NativeValueRequest | undefined)[],
  ): NativeBinding;
  stats(): unknown;
  configure(policy: NativePolicy): void;
  warm(
    slot: number,
    samples: NativeSample[],
    options: { repeat: number; budgetMs: number; checkRows: boolean; throttle: boolean },
  ): void;
  close(slot: number, drain: boolean): void;
  /** Ends the profile of a model loaded with one; startNs is by the real-time clock, in nanoseconds. */
  endProfile(): { file: string; startNs: number };
  /** Ends what is in flight on a model that was closed with `drain`. */
  abandon(): void;
}

export interface NativeLoadOptions {
  key: string;
  intraOpThreads: number;
  computeThreads: number;
  interOpThreads: number;
  parallel: boolean;
  spinning: boolean;
  graphLevel: number;
  deterministic: boolean;
  memoryPattern: boolean;
  memory: string;
  affinity: string;
  /** Flat: key, value, key, value. */
  freeDimensions: string[];
  config: string[];
  providers: { name: string; options: string[]; library: string; device: number }[];
  fallback: boolean;
  optimizedModelPath: string;
  profilePrefix: string;
  customOpLibraries: string[];
  logLevel: number;
  lanes: number;
  lanesGiven: boolean;
  gpuSlots: number;
  /** For tests: the CPU's session, run as if it were on GPU 0 of the CUDA runtime that is open. */
  gpuStandIn: boolean;
  gpuStandInGraphs: boolean;
  maxQueue: number;
  inline: string;
  throttle: boolean;
}

export interface NativeBareLoop {
  /** One at a time; the completion has runs, elapsedNs and cpuNs. */
  run(slot: number, durationNs: number): void;
  /** Not while it runs. */
  close(): void;
}

export interface NativeArenaUse {
  /** Address and bytes, in turns. */
  slabs: number[];
  classes: { objectBytes: number; spans: number; freeObjects: number }[];
  freePageBytes: number;
  largestFreeBytes: number;
}

export interface NativeAddon {
  start(options: {
    library: string;
    maxBytes: number;
    hugePages: boolean;
    lockMemory: boolean;
    pinMemory: boolean;
    neverPin: boolean;
    /** Empty for the system's. */
    cudaLibrary: string;
    logLevel: number;
  }): void;
  load(
    slot: number,
    source: {
      path?: string;
      bytes?: Uint8Array;
      externalNames?: string[];
      externalBytes?: Uint8Array[];
    },
    options: NativeLoadOptions,
  ): void;
  next(): number;
  finish(targets: unknown): unknown;
  cancel(slot: number): void;
  flush(): void;
  allocate(bytes: number): ArrayBuffer;
  /** See native/core/memory/shared_memory.h: runs use it in place, like what allocate() gives. */
  mapShared(key: string, offset: number, bytes: number): ArrayBuffer;
  /** Whether all of what was mapped can still be touched. */
  sharedIntact(buffer: ArrayBuffer): boolean;
  detachShared(buffer: ArrayBuffer): void;
  stats(): Record<string, unknown>;
  providers(): string[];
  /** By an absolute path. */
  registerProvider(path: string): void;
  /** Of one library, or with '' of all. */
  providerDevices(path: string): ProviderDevice[];
  /** What an engine of TensorRT is made for. */
  gpu(device: number): { name: string; capability: string; driver: string; tensorRt: number };
  /** See native/core/base/file_lock.h; undefined while another process holds it. */
  tryLock(path: string): object | undefined;
  unlock(lock: object): void;
  trim(): void;
  /** Sets (0: only asks) how many compute threads run at once; returns the number. */
  setComputeThreads(threads: number): number;
  setMeta(meta: Float64Array): void;
  /** See native/core/json/json_tensor.h: the text with number arrays cut out, and where each begins and ends. */
  carveJson(bytes: Uint8Array, rows: boolean, marker: string, spans: Float64Array): string;
  /** The shape of nested lists. */
  jsonShape(bytes: Uint8Array, begin: number, end: number, where: string): number[];
  nestedBound(dtype: number, dims: Float64Array): number;
  printNested(
    dtype: number,
    tokens: boolean,
    data: ArrayBufferView,
    dims: Float64Array,
    out: Uint8Array,
    at: number,
    where: string,
  ): number;
  parseJson(
    bytes: Uint8Array,
    begin: number,
    end: number,
    dtype: number,
    tokens: boolean,
    out: ArrayBufferView,
    datatype: string,
    where: string,
  ): void;
  /** On a thread of its own: the arrays must stay until the slot's completion. */
  parseJsonLater(slot: number, ...as: Parameters<NativeAddon['parseJson']>): void;
  printJsonLater(slot: number, ...as: Parameters<NativeAddon['printJson']>): void;
  jsonBound(dtype: number, count: number): number;
  printJson(
    dtype: number,
    tokens: boolean,
    data: ArrayBufferView,
    out: Uint8Array,
    at: number,
    where: string,
  ): number;
  /** See native/measure/bare_loop.h; the completion is a NativeBareLoop. */
  bareLoop(
    slot: number,
    path: string,
    options: NativeLoadOptions,
    inputs: { name: string; dtype: number; dims: readonly number[]; bytes: Uint8Array }[],
    loops: number,
  ): void;
  /** Logs every allocation through Tercel's allocator: see native/core/memory/allocation_log.h. */
  startAllocationLog(capacity: number): void;
  /** Nanoseconds (monotonic), address and bytes of each, 0 bytes for a free. */
  stopAllocationLog(): { events: Float64Array; dropped: number } | undefined;
  arenaUse(): NativeArenaUse | undefined;
  /** Of the C library's heap; undefined where it does not say. */
  mallocUse(): { usedBytes: number; freeBytes: number; mappedBytes: number } | undefined;
  clocks(): { realMinusMonotonicNs: number; monotonicNs: number };
  /** The completion has bytesPerSecond and flopsPerSecond. */
  measureRoof(slot: number, threads: number): void;
  connect(makeError: (code: number, message: string) => Error, onWake: () => void): void;
}

const require = createRequire(import.meta.url);

/**
 * Loads an addon by the name of its file.
 *
 * @throws ModelError when it is not built, or cannot be loaded
 * @internal
 */
export function requireAddon(name: string): unknown {
  const file = fileURLToPath(new URL(`../build/Release/${name}`, import.meta.url));
  if (!existsSync(file)) {
    throw new ModelError(
      'the native addon is not built: run "npm rebuild tercel" (it needs CMake and a C++20 compiler), ' +
        'or "npm run build" in a checkout; npm may ask you to approve its install script first',
    );
  }
  try {
    return require(file);
  } catch (cause) {
    throw new ModelError(`the native addon cannot be loaded: ${(cause as Error).message}`, {
      cause,
    });
  }
}

export const native = requireAddon('tercel.node') as NativeAddon;

let wake = (): void => {};

/** Sets what runs when native threads have completions for this JS thread. */
export function onWake(callback: () => void): void {
  wake = callback;
}

native.connect(errorFromNative, () => wake());
