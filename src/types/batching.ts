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
