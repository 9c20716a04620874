import type { ErrorCode } from '../errors.js';

export interface ModelStats {
  /** Where the model came from. */
  source: string;
  /** Runs that ended, on all JS threads of the process: the sum of the next two. */
  runs: number;
  /** runSync(), bindings' runSync(), and run() executed on the calling thread. */
  runsInline: number;
  runsOnLanes: number;
  failed: number;
  /** Runs that ended because of what their inputs were. */
  invalid: number;
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
  /** Microseconds of inline runs that went well: one in 16 is timed, and stands for others of its rows. */
  inlineUs: number;
  /** When the last run ended, in milliseconds since 1970, to a few of them; 0 before the first. */
  lastMs: number;
  /** Runs by their rows, on lanes and inline. */
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

/** What the whole process has. */
export interface ProcessStats {
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

export interface EngineStats extends ProcessStats {
  /** Requests that failed before a model was found, by the error's code. */
  unmatched: Partial<Record<ErrorCode, number>>;
}
