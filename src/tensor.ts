import { InvalidInputError } from './errors.js';

/** Float16Array, where this Node has it (24 and newer). */
export interface Float16ArrayLike extends ArrayBufferView {
  readonly length: number;
  readonly BYTES_PER_ELEMENT: number;
  [index: number]: number;
}

/** The data that a tensor of each dtype holds, row-major. */
export interface DataByDType {
  float32: Float32Array;
  float64: Float64Array;
  /** Bits as Uint16Array, or Float16Array where Node has it (results are the latter there). */
  float16: Uint16Array | Float16ArrayLike;
  /** Bits: the upper half of a float32. */
  bfloat16: Uint16Array;
  int8: Int8Array;
  int16: Int16Array;
  int32: Int32Array;
  int64: BigInt64Array;
  uint8: Uint8Array | Uint8ClampedArray;
  uint16: Uint16Array;
  uint32: Uint32Array;
  uint64: BigUint64Array;
  /** One byte an element, 0 or 1. */
  bool: Uint8Array;
  string: string[];
}

export type DType = keyof DataByDType;

/** An element type, a shape ([] is a scalar) and as many elements as the shape says, row-major. */
export interface Tensor<D extends DType = DType> {
  readonly dtype: D;
  readonly shape: readonly number[];
  readonly data: DataByDType[D];
}

/** What a model's input or output can hold. Maps keep the order of the model. */
export type Value = Tensor | Value[] | Map<string | bigint, unknown> | null;

/** Whether a value is a tensor, rather than a sequence, a map or nothing. */
export function isTensor(value: Value | undefined): value is Tensor {
  return !!value && !Array.isArray(value) && !(value instanceof Map);
}

/** ONNX's codes (TensorProto.DataType), which the native core uses too. */
export const dtypeCodes: Readonly<Record<DType, number>> = {
  float32: 1,
  uint8: 2,
  int8: 3,
  uint16: 4,
  int16: 5,
  int32: 6,
  int64: 7,
  string: 8,
  bool: 9,
  float16: 10,
  float64: 11,
  uint32: 12,
  uint64: 13,
  bfloat16: 16,
};

const dtypeNames: DType[] = [];
for (const name of Object.keys(dtypeCodes) as DType[]) dtypeNames[dtypeCodes[name]] = name;

/** The name of an ONNX code, or undefined for one that Tercel does not carry. */
export function dtypeFromCode(code: number): DType | undefined {
  return dtypeNames[code];
}

type NumericArray =
  | Float32Array
  | Float64Array
  | Uint16Array
  | Int8Array
  | Int16Array
  | Int32Array
  | BigInt64Array
  | Uint8Array
  | Uint32Array
  | BigUint64Array;

interface NumericArrayType {
  readonly BYTES_PER_ELEMENT: number;
  new (buffer: ArrayBufferLike, byteOffset?: number, length?: number): NumericArray;
}

const arrayTypes: Record<Exclude<DType, 'string'>, NumericArrayType> = {
  float32: Float32Array,
  float64: Float64Array,
  float16: Uint16Array,
  bfloat16: Uint16Array,
  int8: Int8Array,
  int16: Int16Array,
  int32: Int32Array,
  int64: BigInt64Array,
  uint8: Uint8Array,
  uint16: Uint16Array,
  uint32: Uint32Array,
  uint64: BigUint64Array,
  bool: Uint8Array,
};

/** Float16Array of this Node, if any. */
export const Float16 = (
  globalThis as {
    Float16Array?: new (buffer: ArrayBufferLike, at?: number, n?: number) => Float16ArrayLike;
  }
).Float16Array;

/** Bytes of one element; 0 for strings. */
export function bytesPerElement(dtype: DType): number {
  return dtype === 'string' ? 0 : arrayTypes[dtype].BYTES_PER_ELEMENT;
}

/** Elements of a shape. Throws InvalidInputError for a dimension that is not a whole number >= 0. */
export function countElements(shape: readonly number[]): number {
  let count = 1;
  for (const dim of shape) {
    if (!Number.isSafeInteger(dim) || dim < 0) {
      throw new InvalidInputError(
        `shape [${shape.join(',')}]: a dimension must be a whole number of 0 or more, got ${dim}`,
      );
    }
    count *= dim;
  }
  if (!Number.isSafeInteger(count)) {
    throw new InvalidInputError(`shape [${shape.join(',')}] is too large`);
  }
  return count;
}

/**
 * A view over `bytes` of a buffer as the addon sees a dtype: float16 by its bits. Throws RangeError as
 * typed arrays do when it does not fit.
 */
export function viewBits(
  dtype: Exclude<DType, 'string'>,
  buffer: ArrayBufferLike,
  byteOffset: number,
  bytes: number,
): Float32Array {
  const type = arrayTypes[dtype];
  return new type(buffer, byteOffset, bytes / type.BYTES_PER_ELEMENT) as Float32Array;
}

/**
 * A view of `length` elements over a buffer: the array type of the dtype, Float16Array for float16
 * where Node has it. Throws RangeError as typed arrays do when it does not fit.
 */
export function viewOf(
  dtype: Exclude<DType, 'string'>,
  buffer: ArrayBufferLike,
  byteOffset = 0,
  length?: number,
): DataByDType[DType] {
  if (dtype === 'float16' && Float16) return new Float16(buffer, byteOffset, length);
  return new arrayTypes[dtype](buffer, byteOffset, length);
}
