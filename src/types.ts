import type { DType } from './tensor.js';

/** A declared input or output of a model. */
export interface ValueMetadata {
  readonly name: string;
  readonly kind: 'tensor' | 'sequence' | 'map' | 'optional';
  /** Of the tensor, or of the tensors inside; a map's is that of its values. */
  readonly dtype: DType;
  /**
   * A number for a fixed dimension, its name for a dynamic one ('' where it has none). ONNX Runtime
   * reports a tensor of unknown rank as a scalar: [].
   */
  readonly shape: readonly (number | string)[];
}

/** An execution provider and its options, as ONNX Runtime documents them. */
export interface ProviderSpec {
  /** 'cpu', 'cuda', 'tensorrt', or any name that the library or a plugin knows. */
  name: string;
  options?: Record<string, string | number | boolean>;
  /** The library of a plugin provider, which is registered first; see registerProvider(). */
  library?: string;
  /** Which of the devices that a plugin provider offers, as in providerDevices(). Default 0, its first. */
  device?: number;
}

/** A device as an execution provider offers it. */
export interface ProviderDevice {
  /** The provider's name, for `providers`. */
  provider: string;
  vendor: string;
  type: 'cpu' | 'gpu' | 'npu' | 'other';
  hardwareVendor: string;
  /** By PCI. */
  vendorId: number;
  deviceId: number;
  /** What the provider says of it, such as its version and its library's path. */
  metadata: Record<string, string>;
  /** The provider's options for it, as they are by default. */
  options: Record<string, string>;
}

/** How a model runs on a GPU, where 'cuda' or 'tensorrt' is among its providers. */
export interface GpuOptions {
  /** The GPU's number, as CUDA counts. Default 0. */
  device?: number;
  /**
   * Bytes that ONNX Runtime's arena on the GPU may take (`gpu_mem_limit`). Not Tercel's own inputs and outputs
   * there; with TensorRT in front, its provider's arena is the session's and has no limit. Default: none.
   */
  memoryLimit?: number;
  /**
   * How that arena grows: by what is asked for, which wastes least, or by doubling, which asks the driver less
   * often. Default 'next-power-of-two'.
   */
  arenaStrategy?: 'same-as-requested' | 'next-power-of-two';
  /**
   * Runs in flight: while one computes, the next one's inputs are copied in and the last one's outputs
   * out. Also the number of lanes, unless `lanes` says another. 0 leaves the copies to ONNX Runtime,
   * one run after the other. Default 2.
   */
  slots?: number;
  /**
   * CUDA graphs (of the CUDA provider): a run is then one launch instead of one for each kernel. True:
   * for batches of 1, 2, 4 and so on up to maxBatch, and the preferred sizes; or for these sizes. Smaller
   * batches are filled up to the next size. The graph must run on the GPU as a whole, without control
   * flow; with TensorRT among the providers there are none. Default false.
   */
  graphs?: boolean | readonly number[];
  /** TensorRT may compute in half precision, or in 8 bits where the model is quantised. Default 'fp32'. */
  precision?: 'fp32' | 'fp16' | 'bf16' | 'int8';
  /**
   * Where TensorRT's engines and timings are kept, by model, GPU, driver and versions; false: nowhere.
   * Building an engine takes minutes, and of the processes that share the folder one builds at a time:
   * loadModel() and engine.load() wait, a repository's model is served by the next provider meanwhile. Default:
   * `tercel/engines` in the user's cache folder (XDG_CACHE_HOME, or ~/.cache); where that cannot be used, a
   * process warning says so, and nothing is kept.
   */
  engineCache?: string | false;
}

/** How a model is loaded and run. Everything is optional. */
export interface ModelOptions {
  /** Threads inside one run (intra-op). Default 1: lanes run side by side instead. */
  threads?: number;
  /** Threads for independent nodes, with `executionMode: 'parallel'`. Default 1. */
  interOpThreads?: number;
  executionMode?: 'sequential' | 'parallel';
  /** ONNX Runtime's own workers spin between runs: lower latency, and a core each. Default false. */
  spinning?: boolean;
  /** Graph optimisation. Default 'all'. */
  graphLevel?: 'none' | 'basic' | 'extended' | 'layout' | 'all';
  /** `session.intra_op_thread_affinities`: one entry fewer than threads, as in '1,2;3'. */
  affinity?: string;
  /**
   * Where the session's CPU memory comes from: Tercel's arena (counted in stats()), ONNX Runtime's own
   * arena, or malloc. Default 'tercel'; with a GPU that is ONNX Runtime's own, as Tercel's is pinned then, and
   * ONNX Runtime lets go of what it copies from before a GPU has read it.
   */
  memory?: 'tercel' | 'ort' | 'malloc';
  /** Plan one block for all intermediate tensors of a known shape. Default true. */
  memoryPattern?: boolean;
  /** Ask kernels for deterministic results. Default false. */
  deterministic?: boolean;
  /** Fixes named dynamic dimensions, so that the graph is optimised for them. */
  freeDimensions?: Record<string, number>;
  /** Any session config entry, as in onnxruntime_session_options_config_keys.h. Wins over the above. */
  config?: Record<string, string>;
  /** In order of preference; 'cpu' is always there, last. */
  providers?: (string | ProviderSpec)[];
  /** For 'cuda' and 'tensorrt'. An option given to the provider by its own name wins. */
  gpu?: GpuOptions;
  /** A provider that cannot be loaded is a process warning, and the next one is taken. Default false. */
  fallback?: boolean;
  /**
   * Native threads that execute run(). Default: as many as cores / threads, and one less for batches of runs
   * that are short, or that were not measured; on a GPU `gpu.slots`.
   */
  lanes?: number;
  /**
   * The model's share of the compute threads while other models want them too, in proportion to theirs.
   * Default 1.
   */
  weight?: number;
  /**
   * Requests that wait share a run. 'auto' measures after loading whether that pays, and with how many
   * rows (engine.load() does so by default); an object says how. Default false.
   */
  batching?: BatchingOptions | false | 'auto';
  /**
   * Load and warm up on a thread that gives way, so that what is served meanwhile stays quick: at the
   * lowest priority, and pausing half of the time while runs compute, as long as it had a third of the
   * time. On Linux a timer interrupts it, by the last real-time signal that has no handler. Default
   * false; a repository does so with all models but those that it starts with.
   */
  throttle?: boolean;
  /** Runs waiting for a lane; the next one gets OverloadError. Default 1024. */
  maxQueue?: number;
  /**
   * Whether run() may execute on the calling thread: 'auto' when the measured median run is shorter
   * than a thread hop and nothing is in flight, 'always', or 'never'. Default 'auto'.
   */
  inline?: 'auto' | 'always' | 'never';
  /** External data files by the name the model gives them, instead of those beside it. */
  externalData?: Record<string, Uint8Array>;
  /** Shared libraries with custom operators. */
  customOpLibraries?: string[];
  /** Write the optimised graph here. */
  optimizedModelPath?: string;
  /** Write ONNX Runtime's profile to files with this prefix. */
  profilePrefix?: string;
  /** ONNX Runtime's own messages on stderr. Default 'fatal': errors arrive as exceptions. */
  logLevel?: LogLevel;
  /** Cancels the load. */
  signal?: AbortSignal;
}

/** Where a dynamic dimension is padded to. */
export type PadRule = { readonly sizes: readonly number[] } | { readonly multipleOf: number };

/**
 * How requests share runs. They do when the dtypes and all dimensions but the first agree, and the same
 * outputs are wanted; the first dimension of every input and output counts the rows.
 */
export interface BatchingOptions {
  /** Rows of one run at most; a request of more is split. Default: as measured, or 128 with a target. */
  maxBatch?: number;
  /**
   * Microseconds that a request waits for others while the batch is not full. Default 0: a lane that is
   * free takes what is there, and batches form by themselves while all are busy.
   */
  maxDelayUs?: number;
  /** Sizes that go at once, without the delay. */
  preferredSizes?: readonly number[];
  /**
   * Milliseconds that 99 of 100 requests shall take at most, from submission to result. Size and delay
   * are then learnt from the runs, for the highest throughput inside the target, and a request that
   * would come too late is refused with OverloadError.
   */
  targetP99Ms?: number;
  /** Results leave in the order in which requests came. Default false. */
  preserveOrder?: boolean;
  /**
   * Named dynamic dimensions (not the first) that are padded, up to the next of `sizes` or a multiple, so
   * that requests of different sizes share a run. Outputs that have the dimension are cut back.
   */
  padding?: Readonly<Record<string, PadRule>>;
  /** What to pad with, by input. Default 0. */
  padValues?: Readonly<Record<string, number>>;
}

/** Inputs for one warm-up run. */
export interface WarmUpSample {
  /** Rows. Default 1. */
  batch?: number;
  data?: 'zero' | 'random';
  /** Sizes of dynamic dimensions by name. Default 1. */
  dimensions?: Readonly<Record<string, number>>;
  /** Shapes by input; with or without the rows. */
  shapes?: Readonly<Record<string, readonly number[]>>;
  /** Raw little-endian data by input; what is not here is made up. */
  inputs?: Readonly<Record<string, Uint8Array>>;
  /** How often. Default 1. */
  count?: number;
}

export type LogLevel = 'verbose' | 'info' | 'warning' | 'error' | 'fatal';

export interface ModelStats {
  /** Where the model came from. */
  source: string;
  /** Runs that ended, on all JS threads of the process: the sum of the next two. */
  runs: number;
  /** runSync(), bindings' runSync(), and run() executed on the calling thread. */
  runsInline: number;
  runsOnLanes: number;
  failed: number;
  /** The queue was full. */
  refused: number;
  /** The deadline passed. */
  expired: number;
  cancelled: number;
  queued: number;
  running: number;
  /** Runs of the graph: a batch is one. */
  executions: number;
  /** Rows of completed runs: the inferences. */
  rows: number;
  /** Batches that failed and were run again one by one. */
  retriedBatches: number;
  /** Microseconds, summed over completed requests on lanes: in the queue, in the run; of failed ones both. */
  queueUs: number;
  runUs: number;
  failedUs: number;
  /** Runs on lanes by their rows. */
  batches: { rows: number; runs: number; runUs: number }[];
  /** The policy now: the largest batch allowed; with a latency target, what was learnt. */
  batching: { maxBatch: number; batch: number; delayUs: number; p99Us: number };
  /** Native threads started for the model. */
  lanes: number;
  /** The GPU that it runs on, of `devices`; left out on a CPU. */
  device?: number;
  /** Approximate median of one run, in microseconds; 0 before the first. */
  medianRunUs: number;
}

/** Copies between the host and a GPU, by the GPU's clock. */
export interface DeviceCopies {
  count: number;
  bytes: number;
  us: number;
}

/** A GPU that models run on. What neither the CUDA runtime nor the driver (by NVML) says is left out. */
export interface DeviceStats {
  /** As CUDA counts. */
  device: number;
  /** Compute capability, such as '9.0'. */
  capability: string;
  pciBusId: string;
  name?: string;
  driver?: string;
  /** Of the whole GPU, whoever uses it. */
  totalBytes?: number;
  usedBytes?: number;
  /** Tercel's inputs and outputs there: taken from CUDA, and of them in use. */
  reservedBytes: number;
  leasedBytes: number;
  leases: number;
  /** Runs, and of them those of a CUDA graph. */
  runs: number;
  graphRuns: number;
  copiesIn: DeviceCopies;
  copiesOut: DeviceCopies;
  /** Parts of the driver's last sample period: in which a kernel ran, in which memory was read or written. */
  utilization?: number;
  memoryUtilization?: number;
  watts?: number;
  celsius?: number;
}

export interface EngineStats {
  /** The ONNX Runtime in use; null before the first model or allocation. */
  library: { path: string; version: string } | null;
  /** Bytes unless said otherwise. ONNX Runtime's CPU allocations are included (`memory: 'tercel'`). */
  arena: {
    reservedBytes: number;
    leasedBytes: number;
    peakLeasedBytes: number;
    allocations: number;
    frees: number;
    slabs: number;
    hugePages: boolean;
    locked: boolean;
    pinned: boolean;
  };
  /**
   * Leases alive: tensors from allocate(), bindings, runs in flight, and up to 64 small ones that a model
   * keeps for its next runs until it is closed.
   */
  leases: number;
  /** Tensor bytes copied into leases and out to results, since the start. */
  copies: { bytesIn: number; bytesOut: number };
  /** Median time to wake a parked lane, in microseconds; 0 before it was measured. */
  laneWakeUs: number;
  /** GPUs that models run on, or did. */
  devices: DeviceStats[];
  /** Sessions alive in the process. */
  models: ModelStats[];
}

/** Process-wide settings, fixed by the first model or allocation. */
export interface RuntimeOptions {
  /**
   * Path of libonnxruntime. Default: `TERCEL_ORT_LIBRARY`, else the one in the onnxruntime-node package.
   */
  library?: string;
  arena?: {
    /** Limit on what the arena reserves, in bytes; past it runs get OverloadError. Default: none. */
    maxBytes?: number;
    /** Transparent huge pages where the system gives them. Default true. */
    hugePages?: boolean;
    /** Keep the arena resident (mlock; needs `ulimit -l`). Default false. */
    lock?: boolean;
    /**
     * Pin the arena by the CUDA runtime, so that GPUs copy from and to it by themselves: tensors of
     * allocate(), request bodies, batches. Needs libcudart 12 or 13 and a GPU, else the first model or
     * allocation throws ModelError. True for the system's libcudart, or the path of one; false: never.
     * Default: from the first model on that runs on a GPU, as far as the CUDA runtime allows.
     */
    pin?: boolean | string;
  };
  /**
   * Lanes' runs that compute at the same time, over all models, counted in their threads. A model whose
   * run has more threads gets all of them. Default: the machine's processors.
   */
  computeThreads?: number;
  /** ONNX Runtime's own messages on stderr. Default 'fatal': errors arrive as exceptions. */
  logLevel?: LogLevel;
}
