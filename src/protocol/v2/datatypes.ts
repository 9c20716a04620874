// The v2 protocol's tensors as bytes: what its REST and its gRPC form have in common.
//
// Sources: the KServe project's "Open Inference Protocol (v2)", Triton's "Binary Tensor Data Extension".
import { InvalidInputError } from '../../errors.js';
import {
  bytesPerElement,
  viewOf,
  type DataByDType,
  type DType,
  type Tensor,
} from '../../tensor.js';

const datatypes: Readonly<Record<DType, string>> = {
  bool: 'BOOL',
  uint8: 'UINT8',
  uint16: 'UINT16',
  uint32: 'UINT32',
  uint64: 'UINT64',
  int8: 'INT8',
  int16: 'INT16',
  int32: 'INT32',
  int64: 'INT64',
  float16: 'FP16',
  bfloat16: 'BF16',
  float32: 'FP32',
  float64: 'FP64',
  string: 'BYTES',
};

const dtypes = new Map(Object.entries(datatypes).map(([dtype, name]) => [name, dtype as DType]));

/** The protocol's name of a dtype. */
export function datatypeOf(dtype: DType): string {
  return datatypes[dtype];
}

/** The dtype of the protocol's name. Throws InvalidInputError. */
export function dtypeOfName(name: unknown, where: string): DType {
  const dtype = dtypes.get(name as string);
  if (dtype) return dtype;
  const shown = typeof name === 'string' ? JSON.stringify(name.slice(0, 100)) : typeof name;
  throw new InvalidInputError(
    `${where}: datatype ${shown} is not one of ${[...dtypes.keys()].join(', ')}`,
  );
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** Bytes as a string tensor has them. Throws InvalidInputError: what is not UTF-8 would be changed. */
export function textOf(bytes: Uint8Array, where: string): string {
  try {
    return utf8.decode(bytes);
  } catch (cause) {
    throw new InvalidInputError(
      `${where}: ${bytes.length} bytes are not UTF-8, which strings are`,
      {
        cause,
      },
    );
  }
}

/** The text of {"b64": "..."}. Throws InvalidInputError for what is no base64, and as textOf(). */
export function textOfBase64(base64: string, where: string): string {
  if (!/^[A-Za-z0-9+/]*={0,2}$/.test(base64) || base64.length % 4 === 1) {
    throw new InvalidInputError(`${where}: b64 holds what is no base64`);
  }
  return textOf(Buffer.from(base64, 'base64'), where);
}

/** BYTES: each element a uint32 little-endian length and its bytes. */
export function stringsFromBinary(bytes: Uint8Array, count: number, where: string): string[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const strings: string[] = [];
  let at = 0;
  for (let i = 0; i < count; i++) {
    if (at + 4 > bytes.length) {
      throw new InvalidInputError(
        `${where}: BYTES data ends in the length of element ${i} of ${count}`,
      );
    }
    const length = view.getUint32(at, true);
    at += 4;
    if (at + length > bytes.length) {
      throw new InvalidInputError(
        `${where}: BYTES element ${i} says ${length} bytes, ${bytes.length - at} are left`,
      );
    }
    strings.push(textOf(bytes.subarray(at, at + length), where));
    at += length;
  }
  if (at !== bytes.length) {
    throw new InvalidInputError(
      `${where}: ${bytes.length - at} bytes are left after ${count} BYTES elements`,
    );
  }
  return strings;
}

/**
 * The elements that raw bytes hold, in place where the address allows.
 *
 * @throws InvalidInputError for a length that does not fit
 */
export function elementsFromBinary(
  dtype: DType,
  bytes: Uint8Array,
  count: number,
  where: string,
): DataByDType[DType] {
  if (dtype === 'string') return stringsFromBinary(bytes, count, where);
  const size = bytesPerElement(dtype);
  if (bytes.length !== count * size) {
    throw new InvalidInputError(
      `${where}: the shape needs ${count * size} bytes of ${datatypes[dtype]}, ${bytes.length} came`,
    );
  }
  // In place where the address allows: the body's start is aligned, tensors behind it need not be.
  if (bytes.byteOffset % size === 0) return viewOf(dtype, bytes.buffer, bytes.byteOffset, count);
  return viewOf(dtype, Uint8Array.prototype.slice.call(bytes).buffer);
}

function bytesOfStrings(strings: readonly string[]): Uint8Array {
  const parts = strings.flatMap((text) => {
    const bytes = Buffer.from(text, 'utf8');
    const length = Buffer.alloc(4);
    length.writeUInt32LE(bytes.length);
    return [length, bytes];
  });
  return Buffer.concat(parts);
}

/** A tensor's elements as the protocol's raw bytes, in place; strings with their lengths. */
export function bytesOf({ data }: Tensor): Uint8Array {
  if (Array.isArray(data)) return bytesOfStrings(data);
  return new Uint8Array(data.buffer as ArrayBuffer, data.byteOffset, data.byteLength);
}
