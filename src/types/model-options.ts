import type { BatchingOptions } from './batching.js';
import type { GpuOptions } from './gpu.js';
import type { ProviderSpec } from './provider.js';
import type { LogLevel } from './runtime-options.js';

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
