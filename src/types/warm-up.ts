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
