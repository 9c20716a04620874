import type { DType } from '../tensor.js';

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
