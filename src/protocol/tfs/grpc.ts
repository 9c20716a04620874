// TensorFlow Serving over gRPC: PredictRequest and PredictResponse, whose tensors are read and written
// where the message has them. Field numbers: schema/tensorflow_serving.proto, schema/tensorflow.proto.
import { InvalidInputError } from '../../errors.js';
import { unknownName } from '../../names.js';
import {
  bytesPerElement,
  countElements,
  viewOf,
  type DataByDType,
  type DType,
  type Tensor,
} from '../../tensor.js';
import {
  checkCount,
  MOST_DIMENSIONS,
  MOST_ENTRIES,
  ProtoReader,
  ProtoWriter,
  varintBytes,
  writeVarint,
} from '../../protobuf.js';
import { tfTypes } from './describe.js';
import { SIGNATURE, checkSignature } from './rest.js';
import { textOf } from '../v2/datatypes.js';

const dtypeOfCode = new Map(
  Object.entries(tfTypes).map(([dtype, [, code]]) => [code, dtype as DType]),
);

/** The model that a request names. */
export interface ModelSpec {
  model: string;
  /** A version or a label; undefined: the newest. */
  version?: string;
}

export interface GrpcPredictRequest extends ModelSpec {
  inputs: Record<string, Tensor>;
  /** Undefined: all. */
  outputs: string[] | undefined;
}

function readModelSpec(reader: ProtoReader): ModelSpec {
  let model = '';
  let version: string | undefined;
  let signature = '';
  while (reader.next()) {
    if (reader.field === 1) model = reader.string();
    else if (reader.field === 2) {
      const wrapped = reader.message();
      version = '0'; // what is not written is zero
      while (wrapped.next()) {
        if (wrapped.field === 1) version = String(wrapped.int64());
        else wrapped.skip();
      }
    } else if (reader.field === 3) signature = reader.string();
    else if (reader.field === 4) version = reader.string();
    else reader.skip();
  }
  checkSignature(signature);
  return { model, ...(version !== undefined && { version }) };
}

/** The field of TensorProto that a dtype's values are in. */
const valueFields: Readonly<Record<DType, number>> = {
  float32: 5,
  float64: 6,
  int32: 7,
  int16: 7,
  int8: 7,
  uint8: 7,
  uint16: 7,
  string: 8,
  int64: 10,
  bool: 11,
  float16: 13,
  bfloat16: 13,
  uint32: 16,
  uint64: 17,
};

function readShape(reader: ProtoReader, where: string): number[] {
  const shape: number[] = [];
  while (reader.next()) {
    if (reader.field === 2) {
      const dim = reader.message();
      let size = 0;
      while (dim.next()) {
        if (dim.field === 1) size = dim.int64();
        else dim.skip();
      }
      shape.push(size);
      checkCount(shape.length, MOST_DIMENSIONS, `dimensions in ${where}`);
    } else if (reader.field === 3) {
      if (reader.bool()) throw new InvalidInputError(`${where}: a tensor of unknown rank`);
    } else reader.skip();
  }
  return shape;
}

/**
 * A TensorProto: `tensor_content`, or values of which the last one stands for those that are missing.
 *
 * Source: tensorflow/core/framework/tensor.proto.
 */
function readTensor(message: Uint8Array, where: string, budget: Budget): Tensor {
  let code = 0;
  let shape: number[] = [];
  let content: Uint8Array | undefined;
  const fields = new ProtoReader(message);
  while (fields.next()) {
    if (fields.field === 1) code = fields.uint64();
    else if (fields.field === 2) shape = readShape(fields.message(), where);
    else if (fields.field === 4) content = fields.bytes();
    else fields.skip();
  }
  const dtype = dtypeOfCode.get(code);
  if (!dtype) throw new InvalidInputError(`${where}: dtype ${code} is none that ONNX models have`);
  let count: number;
  try {
    count = countElements(shape);
  } catch (cause) {
    throw new InvalidInputError(`${where}: ${(cause as Error).message}`, { cause });
  }
  const size = bytesPerElement(dtype);
  if (content && content.length > 0 && dtype !== 'string') {
    if (content.length !== count * size) {
      throw new InvalidInputError(
        `${where}: the shape needs ${count * size} bytes of ${dtype}, tensor_content has ${content.length}`,
      );
    }
    const isAligned = content.byteOffset % size === 0;
    const bytes = isAligned ? content : Uint8Array.prototype.slice.call(content);
    return { dtype, shape, data: viewOf(dtype, bytes.buffer, bytes.byteOffset, count) };
  }
  return { dtype, shape, data: readValues(new ProtoReader(message), dtype, count, where, budget) };
}

/** Tensors may name one value for all their elements: of a message, so much of that is believed. */
const MAX_FILLED_BYTES = 64 * 1024 * 1024;

/** What is left of it. */
interface Budget {
  bytes: number;
}

function readValues(
  reader: ProtoReader,
  dtype: DType,
  count: number,
  where: string,
  budget: Budget,
): DataByDType[DType] {
  const wanted = valueFields[dtype];
  const size = bytesPerElement(dtype);
  budget.bytes -= count * Math.max(size, 8);
  if (budget.bytes < 0) {
    throw new InvalidInputError(
      `${where}: ${count} elements as values; send what is larger than 64 MiB together as tensor_content`,
    );
  }
  const strings: string[] = [];
  const memory = new ArrayBuffer(count * size);
  const data = dtype === 'string' ? undefined : viewOf(dtype, memory);
  // float16 by its bits.
  const numbers = (wanted === 13 ? new Uint16Array(memory) : data) as Int32Array;
  const longs = data as BigInt64Array | undefined;
  const bytes = new Uint8Array(memory);
  let filled = 0;
  const room = (more: number): void => {
    if (filled + more <= count) return;
    throw new InvalidInputError(`${where}: the shape holds ${count} elements, more values came`);
  };
  while (reader.next()) {
    if (reader.field !== wanted) {
      reader.skip();
    } else if (wanted === 8) {
      if (strings.length === count) room(count + 1);
      strings.push(textOf(reader.bytes(), where));
    } else if (wanted === 5 || wanted === 6) {
      const span = reader.fixed(wanted === 5 ? 4 : 8);
      room(span.length / size);
      bytes.set(span, filled * size);
      filled += span.length / size;
    } else {
      reader.repeated((packed) => {
        room(1);
        if (wanted === 10) longs![filled++] = packed.rawInt64();
        else if (wanted === 17) longs![filled++] = packed.rawUint64();
        else {
          const value =
            wanted === 11
              ? Number(packed.rawBool())
              : wanted === 16
                ? packed.rawUint32()
                : packed.rawInt32();
          numbers[filled] = value;
          if (numbers[filled] !== value) {
            throw new InvalidInputError(
              `${where}: element ${filled}, ${value}, does not fit ${dtype}`,
            );
          }
          filled++;
        }
      });
    }
  }
  const got = dtype === 'string' ? strings.length : filled;
  if (got === 0 && count > 0) throw new InvalidInputError(`${where}: no values came`);
  if (dtype === 'string') {
    while (strings.length < count) strings.push(strings.at(-1)!);
    return strings;
  }
  if (got < count && got > 0) {
    // Twice as much each time.
    const from = (got - 1) * size;
    for (let done = size; from + done < bytes.length; done *= 2) {
      bytes.copyWithin(from + done, from, from + Math.min(done, bytes.length - from - done));
    }
  }
  return data!;
}

/**
 * Reads a PredictRequest.
 *
 * @param accept is told the model before any tensor is read; gives the inputs that it has, or throws
 * @throws InvalidInputError naming the input and what was expected
 */
export function decodeGrpcPredict(
  message: Uint8Array,
  accept?: (spec: ModelSpec) => readonly { name: string }[],
): GrpcPredictRequest {
  const reader = new ProtoReader(message);
  let spec: ModelSpec = { model: '' };
  // The last of a name counts.
  const tensors = new Map<string, Uint8Array>();
  const outputs: string[] = [];
  while (reader.next()) {
    if (reader.field === 1) spec = readModelSpec(reader.message());
    else if (reader.field === 2) {
      const entry = reader.message();
      let name = '';
      let tensor: Uint8Array | undefined;
      while (entry.next()) {
        if (entry.field === 1) name = entry.string();
        else if (entry.field === 2) tensor = entry.bytes();
        else entry.skip();
      }
      tensors.set(name, tensor ?? new Uint8Array(0));
      checkCount(tensors.size, MOST_ENTRIES, 'inputs');
    } else if (reader.field === 3) {
      outputs.push(reader.string());
      checkCount(outputs.length, MOST_ENTRIES, 'outputs');
    } else reader.skip();
  }
  const known = accept?.(spec);
  const budget: Budget = { bytes: MAX_FILLED_BYTES };
  const inputs = new Map<string, Tensor>();
  for (const [name, tensor] of tensors) {
    if (known && !known.some((input) => input.name === name)) {
      throw unknownName(
        'input',
        name,
        known.map((input) => input.name),
      );
    }
    inputs.set(name, readTensor(tensor, `input "${name}"`, budget));
  }
  return {
    ...spec,
    inputs: Object.fromEntries(inputs),
    outputs: outputs.length > 0 ? outputs : undefined,
  };
}

/** Numbers as varints, packed: negative ones take ten bytes, as 64-bit numbers do. */
function packedInts(values: ArrayLike<number | bigint>): Uint8Array {
  let bytes = 0;
  for (let i = 0; i < values.length; i++) {
    bytes += values[i]! < 0 ? 10 : varintBytes(Number(values[i]!));
  }
  const out = new Uint8Array(bytes);
  let at = 0;
  for (let i = 0; i < values.length; i++) {
    const value = values[i]!;
    if (value >= 0 && value <= Number.MAX_SAFE_INTEGER) {
      at = writeVarint(out, at, Number(value));
      continue;
    }
    let rest = BigInt.asUintN(64, BigInt(value));
    for (; rest >= 128n; rest >>= 7n) out[at++] = Number(rest & 127n) | 128;
    out[at++] = Number(rest);
  }
  return out.subarray(0, at);
}

/** Numbers of 0 or more below 2^32, packed. */
function packedSmall(values: ArrayLike<number>): Uint8Array {
  let bytes = 0;
  for (let i = 0; i < values.length; i++) bytes += varintBytes(values[i]!);
  const out = new Uint8Array(bytes);
  let at = 0;
  for (let i = 0; i < values.length; i++) at = writeVarint(out, at, values[i]!);
  return out;
}

const unsigned = new Set<DType>(['bool', 'uint8', 'uint16', 'uint32', 'float16', 'bfloat16']);

/** A TensorProto with its values in the field of its dtype, which is where clients look for them. */
export function tensorProto({ dtype, shape, data }: Tensor): ProtoWriter {
  const dims = new ProtoWriter();
  for (const dim of shape) dims.message(2, new ProtoWriter().uint(1, dim));
  const writer = new ProtoWriter().uint(1, tfTypes[dtype][1]).message(2, dims);
  const field = valueFields[dtype];
  if (dtype === 'string') {
    for (const text of data as string[]) writer.string(field, text);
    return writer;
  }
  const view = data as Float32Array;
  if (view.length === 0) return writer;
  const raw = new Uint8Array(view.buffer as ArrayBuffer, view.byteOffset, view.byteLength);
  if (dtype === 'float32' || dtype === 'float64') return writer.bytes(field, raw);
  if (unsigned.has(dtype)) {
    // float16 by its bits.
    const isHalf = dtype === 'float16' || dtype === 'bfloat16';
    const numbers = isHalf ? new Uint16Array(view.buffer, view.byteOffset, view.length) : view;
    return writer.bytes(field, packedSmall(numbers));
  }
  return writer.bytes(field, packedInts(view));
}

/** A ModelSpec that says which version answered. */
function modelSpec(name: string, version: string): ProtoWriter {
  return new ProtoWriter()
    .string(1, name)
    .message(2, new ProtoWriter().uint(1, Number(version)))
    .string(3, SIGNATURE);
}

/** Writes a PredictResponse. */
export function encodeGrpcPredict(
  model: { name: string; version: string },
  values: Readonly<Record<string, Tensor>>,
): Buffer {
  const writer = new ProtoWriter();
  for (const [name, tensor] of Object.entries(values)) {
    writer.message(1, new ProtoWriter().string(1, name).message(2, tensorProto(tensor)));
  }
  return writer.message(2, modelSpec(model.name, model.version)).finish();
}
