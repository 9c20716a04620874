// NumPy's files. Format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
import { unzipSync } from 'fflate';
import { InvalidInputError } from '../../errors.js';
import { bytesPerElement, countElements, viewOf, type DType, type Tensor } from '../../tensor.js';

const MAGIC = '\x93NUMPY';

const dtypes: Readonly<Record<string, Exclude<DType, 'string'>>> = {
  f2: 'float16',
  f4: 'float32',
  f8: 'float64',
  i1: 'int8',
  i2: 'int16',
  i4: 'int32',
  i8: 'int64',
  u1: 'uint8',
  u2: 'uint16',
  u4: 'uint32',
  u8: 'uint64',
  b1: 'bool',
};

/**
 * Reads a .npy file: one array of numbers, little-endian and in C order.
 *
 * @param name what errors call it
 * @throws InvalidInputError for anything else
 */
export function readNpy(bytes: Uint8Array, name: string): Tensor {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (buffer.length < 12 || buffer.toString('latin1', 0, 6) !== MAGIC) {
    throw new InvalidInputError(`${name} is no .npy file`);
  }
  const isLong = buffer[6]! >= 2;
  const start = isLong ? 12 : 10;
  const headerBytes = isLong ? buffer.readUInt32LE(8) : buffer.readUInt16LE(8);
  const header = buffer.toString('latin1', start, start + headerBytes);
  const descr = /'descr':\s*'([<>|=]?)([a-z]\d+)'/.exec(header);
  const shapeText = /'shape':\s*\(([^)]*)\)/.exec(header);
  const dtype = descr ? dtypes[descr[2]!] : undefined;
  if (!descr || !dtype || !shapeText) {
    throw new InvalidInputError(
      `${name}: expected an array of numbers, got ${header.trim().slice(0, 80)}`,
    );
  }
  const size = bytesPerElement(dtype);
  if (descr[1] === '>' && size > 1) throw new InvalidInputError(`${name} is big-endian`);
  if (/'fortran_order':\s*True/.test(header)) {
    throw new InvalidInputError(`${name} is in Fortran order; save numpy.ascontiguousarray(it)`);
  }
  const shape = shapeText[1]!
    .split(',')
    .map((part) => part.trim())
    .filter((part) => part !== '')
    .map(Number);
  const count = countElements(shape);
  const data = buffer.subarray(start + headerBytes);
  if (data.length < count * size) {
    throw new InvalidInputError(
      `${name}: shape [${shape.join(',')}] takes ${count * size} bytes, the file has ${data.length}`,
    );
  }
  const copy = new ArrayBuffer(count * size);
  new Uint8Array(copy).set(data.subarray(0, count * size));
  return { dtype, shape, data: viewOf(dtype, copy) };
}

/** Reads a .npz file: arrays by name. */
export function readNpz(bytes: Uint8Array, name: string): Record<string, Tensor> {
  let files: Record<string, Uint8Array>;
  try {
    files = unzipSync(bytes);
  } catch (cause) {
    throw new InvalidInputError(`${name} is no .npz file: ${(cause as Error).message}`, { cause });
  }
  return Object.fromEntries(
    Object.entries(files).map(([entry, content]) => [
      entry.replace(/\.npy$/, ''),
      readNpy(content, `${name}: ${entry}`),
    ]),
  );
}
