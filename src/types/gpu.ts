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
