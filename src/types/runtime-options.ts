export type LogLevel = 'verbose' | 'info' | 'warning' | 'error' | 'fatal';

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
