// InferTensorContents: a tensor's values as typed fields of a message, for clients that do not send raw bytes.
// Field numbers: schema/inference.proto.
import { InvalidInputError } from '../../errors.js';
import { bytesPerElement, viewOf, type DataByDType, type DType } from '../../tensor.js';
import type { ProtoReader } from '../../protobuf.js';
import { datatypeOf, textOf } from './datatypes.js';

const contentsFields: Readonly<Record<DType, number>> = {
  bool: 1,
  int8: 2,
  int16: 2,
  int32: 2,
  int64: 3,
  uint8: 4,
  uint16: 4,
  uint32: 4,
  uint64: 5,
  float32: 6,
  float64: 7,
  string: 8,
  float16: 0,
  bfloat16: 0,
};

const contentsNames = [
  '',
  'bool_contents',
  'int_contents',
  'int64_contents',
  'uint_contents',
  'uint64_contents',
  'fp32_contents',
  'fp64_contents',
  'bytes_contents',
];

/** The numbers of InferTensorContents straight into an array of the dtype. */
export function elementsFromContents(
  reader: ProtoReader,
  dtype: DType,
  count: number,
  where: string,
): DataByDType[DType] {
  const wanted = contentsFields[dtype];
  if (wanted === 0) {
    throw new InvalidInputError(
      `${where}: ${datatypeOf(dtype)} travels in raw_input_contents only`,
    );
  }
  const tooMany = (): never => {
    throw new InvalidInputError(`${where}: the shape holds ${count} elements, contents has more`);
  };
  const strings: string[] = [];
  const size = bytesPerElement(dtype);
  const memory = new ArrayBuffer(count * size);
  const data = dtype === 'string' ? undefined : viewOf(dtype, memory);
  const numbers = data as Int32Array | undefined;
  const longs = data as BigInt64Array | undefined;
  const raw = new Uint8Array(memory);
  let filled = 0;
  const range = integerRanges[dtype];
  while (reader.next()) {
    const { field } = reader;
    if (field !== wanted) {
      if (field >= 1 && field <= 8) {
        throw new InvalidInputError(
          `${where}: ${datatypeOf(dtype)} belongs in ${contentsNames[wanted]}, not in ${contentsNames[field]}`,
        );
      }
      reader.skip();
    } else if (field === 8) {
      if (strings.length === count) tooMany();
      strings.push(textOf(reader.bytes(), where));
    } else if (field === 6 || field === 7) {
      const span = reader.fixed(field === 6 ? 4 : 8);
      if (filled + span.length / size > count) tooMany();
      raw.set(span, filled * size);
      filled += span.length / size;
    } else {
      reader.repeated((packed) => {
        if (filled === count) tooMany();
        if (field === 3) longs![filled++] = packed.rawInt64();
        else if (field === 5) longs![filled++] = packed.rawUint64();
        else if (field === 1) numbers![filled++] = packed.rawBool() ? 1 : 0;
        else {
          const value = field === 2 ? packed.rawInt32() : packed.rawUint32();
          if (value < range![0] || value > range![1]) {
            throw new InvalidInputError(
              `${where}: element ${filled}, ${value}, does not fit ${datatypeOf(dtype)}`,
            );
          }
          numbers![filled++] = value;
        }
      });
    }
  }
  const got = dtype === 'string' ? strings.length : filled;
  if (got !== count) {
    throw new InvalidInputError(`${where}: the shape holds ${count} elements, contents has ${got}`);
  }
  return data ?? strings;
}

const integerRanges: Readonly<Partial<Record<DType, readonly [number, number]>>> = {
  int8: [-128, 127],
  int16: [-32768, 32767],
  int32: [-(2 ** 31), 2 ** 31 - 1],
  uint8: [0, 255],
  uint16: [0, 65535],
  uint32: [0, 2 ** 32 - 1],
};
