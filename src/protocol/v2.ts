// Open Inference Protocol v2 with Triton's binary tensors: bytes <-> tensors. Pure: no I/O, no Fastify.
//
// Sources: the KServe project's "Open Inference Protocol (v2)" and Triton's "Binary Tensor Data
// Extension" and "HTTP/REST" documents.
import {
  carvedArray,
  JsonPrinter,
  parseNumbers,
  printJson,
  type ArraySpan,
  type CarvedJson,
  type JsonTemplate,
} from '../engine/json.js';
import { InvalidInputError } from '../errors.js';
import {
  bytesPerElement,
  countElements,
  viewOf,
  type DataByDType,
  type DType,
  type Tensor,
  type Value,
} from '../tensor.js';
import type { ValueMetadata } from '../types.js';

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

/** An output as the request asks for it. */
export interface RequestedOutput {
  name: string;
  binary: boolean;
}

export interface InferRequest {
  id?: string;
  inputs: Record<string, Tensor>;
  /** Undefined: all. */
  outputs?: RequestedOutput[];
  /** For outputs that do not say. */
  binaryByDefault: boolean;
  priority?: number;
  timeoutMs?: number;
}

interface JsonObject {
  [key: string]: unknown;
}

/** What a client sent, for a message: short, whatever it is. */
function excerpt(value: unknown): string {
  if (typeof value === 'object' && value !== null) {
    return Array.isArray(value) ? 'an array' : 'an object';
  }
  return value === undefined ? 'undefined' : JSON.stringify(value).slice(0, 100);
}

function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Of arrays in arrays. */
const MAX_DEPTH = 100;

function parametersOf(owner: JsonObject, where: string): JsonObject {
  const parameters = owner['parameters'];
  if (parameters === undefined) return {};
  if (!isObject(parameters)) throw new InvalidInputError(`${where}: parameters must be an object`);
  return parameters;
}

function shapeOf(input: JsonObject, where: string): number[] {
  const shape = input['shape'];
  if (!Array.isArray(shape))
    throw new InvalidInputError(`${where}: shape must be an array of numbers`);
  return shape as number[];
}

function dtypeOf(input: JsonObject, where: string): DType {
  const dtype = dtypes.get(input['datatype'] as string);
  if (!dtype) {
    throw new InvalidInputError(
      `${where}: datatype ${excerpt(input['datatype'])} is not one of ${[...dtypes.keys()].join(', ')}`,
    );
  }
  return dtype;
}

function elementsFromJson(
  json: CarvedJson,
  dtype: DType,
  data: unknown,
  count: number,
  where: string,
): DataByDType[DType] {
  const span = carvedArray(json, data);
  if (!span) {
    throw new InvalidInputError(
      Array.isArray(data)
        ? `${where}: the keys "inputs" and "data" must be written without escapes`
        : `${where}: data must be an array`,
    );
  }
  if (dtype === 'float16' || dtype === 'bfloat16') {
    throw new InvalidInputError(
      `${where}: ${datatypes[dtype]} has no JSON form; send it as binary`,
    );
  }
  if (dtype !== 'string') return parseNumbers(span, dtype, count, false, datatypes[dtype], where);
  return stringsFromJson(span, count, where);
}

function stringsFromJson(span: ArraySpan, count: number, where: string): string[] {
  let data: unknown[];
  try {
    data = JSON.parse(
      Buffer.from(span.text.buffer, span.text.byteOffset, span.text.length).toString(
        'utf8',
        span.begin,
        span.end,
      ),
    ) as unknown[];
  } catch (cause) {
    throw new InvalidInputError(
      `${where}: data does not parse, from byte ${span.begin} on: ${(cause as Error).message}`,
      { cause },
    );
  }
  // Nesting is the client's choice: flat, or by rows.
  const strings = data.flat(MAX_DEPTH);
  if (strings.length !== count) {
    throw new InvalidInputError(
      `${where}: the shape holds ${count} elements, data has ${strings.length}`,
    );
  }
  const wrong = strings.findIndex((value) => typeof value !== 'string');
  if (wrong >= 0) {
    throw new InvalidInputError(
      `${where}: element ${wrong} of data, ${excerpt(strings[wrong])}, is no BYTES`,
    );
  }
  return strings as string[];
}

/** BYTES: each element a uint32 little-endian length and its bytes. */
function stringsFromBinary(bytes: Uint8Array, count: number, where: string): string[] {
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
    strings.push(Buffer.from(bytes.buffer, bytes.byteOffset + at, length).toString('utf8'));
    at += length;
  }
  if (at !== bytes.length) {
    throw new InvalidInputError(
      `${where}: ${bytes.length - at} bytes are left after ${count} BYTES elements`,
    );
  }
  return strings;
}

function elementsFromBinary(
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

function parseOutputs(body: JsonObject, binaryByDefault: boolean): RequestedOutput[] | undefined {
  const outputs = body['outputs'];
  if (outputs === undefined) return undefined;
  if (!Array.isArray(outputs)) throw new InvalidInputError('outputs must be an array');
  if (outputs.length === 0) return undefined;
  return outputs.map((output: unknown, i) => {
    if (!isObject(output) || typeof output['name'] !== 'string') {
      throw new InvalidInputError(`outputs[${i}]: a name is missing`);
    }
    const where = `output "${output['name']}"`;
    const parameters = parametersOf(output, where);
    if (parameters['shared_memory_region'] !== undefined) {
      throw new InvalidInputError(`${where}: shared memory is not available on this server`);
    }
    if (parameters['classification'] !== undefined) {
      throw new InvalidInputError(`${where}: classification is not available on this server`);
    }
    const binary = parameters['binary_data'];
    return { name: output['name'], binary: typeof binary === 'boolean' ? binary : binaryByDefault };
  });
}

/**
 * Reads an infer request.
 *
 * @param carved the JSON part
 * @param binary the bytes behind it, in the order of the inputs that have `binary_data_size`
 * @throws InvalidInputError naming the input and what was expected
 */
export function decodeInferRequest(carved: CarvedJson, binary: Uint8Array): InferRequest {
  const json = carved.value;
  if (!isObject(json)) throw new InvalidInputError('the request must be a JSON object');
  const listed = json['inputs'];
  if (!Array.isArray(listed)) throw new InvalidInputError('inputs must be an array');
  const id = json['id'];
  if (id !== undefined && typeof id !== 'string')
    throw new InvalidInputError('id must be a string');
  const parameters = parametersOf(json, 'request');
  const binaryByDefault = parameters['binary_data_output'] === true;

  const inputs: Record<string, Tensor> = {};
  let at = 0;
  for (const [i, input] of listed.entries() as ArrayIterator<[number, unknown]>) {
    if (!isObject(input) || typeof input['name'] !== 'string') {
      throw new InvalidInputError(`inputs[${i}]: a name is missing`);
    }
    const name = input['name'];
    const where = `input "${name}"`;
    if (Object.hasOwn(inputs, name)) throw new InvalidInputError(`${where} is there twice`);
    const dtype = dtypeOf(input, where);
    const shape = shapeOf(input, where);
    let count: number;
    try {
      count = countElements(shape);
    } catch (cause) {
      throw new InvalidInputError(`${where}: ${(cause as Error).message}`, { cause });
    }
    const own = parametersOf(input, where);
    if (own['shared_memory_region'] !== undefined) {
      throw new InvalidInputError(`${where}: shared memory is not available on this server`);
    }
    const size = own['binary_data_size'];
    let data: DataByDType[DType];
    if (size === undefined) {
      data = elementsFromJson(carved, dtype, input['data'], count, where);
    } else {
      if (!Number.isSafeInteger(size) || (size as number) < 0) {
        throw new InvalidInputError(`${where}: binary_data_size must be a whole number of bytes`);
      }
      if (input['data'] !== undefined) {
        throw new InvalidInputError(`${where}: data and binary_data_size exclude each other`);
      }
      const end = at + (size as number);
      if (end > binary.length) {
        throw new InvalidInputError(
          `${where}: binary_data_size is ${size as number}, ${binary.length - at} bytes are left in the body`,
        );
      }
      data = elementsFromBinary(dtype, binary.subarray(at, end), count, where);
      at = end;
    }
    inputs[name] = { dtype, shape, data };
  }
  if (at !== binary.length) {
    throw new InvalidInputError(`${binary.length - at} bytes of the body belong to no input`);
  }
  const outputs = parseOutputs(json, binaryByDefault);
  const priority = parameters['priority'];
  const timeoutUs = parameters['timeout'];
  return {
    ...(id !== undefined && { id }),
    inputs,
    ...(outputs && { outputs }),
    binaryByDefault,
    // 0 is Triton's "default"; what is beyond our levels is the last of them.
    ...(Number.isInteger(priority) &&
      (priority as number) > 0 && { priority: Math.min(priority as number, 8) }),
    ...(typeof timeoutUs === 'number' && timeoutUs > 0 && { timeoutMs: timeoutUs / 1000 }),
  };
}

/**
 * Reads a raw request (`Inference-Header-Content-Length: 0`): the body is the one input, of batch 1 and
 * with at most one more variable dimension. Outputs are binary.
 *
 * @throws InvalidInputError when the model or the length does not allow it
 */
export function decodeRawRequest(inputs: readonly ValueMetadata[], body: Uint8Array): InferRequest {
  const input = inputs[0];
  if (inputs.length !== 1 || !input || input.kind !== 'tensor') {
    throw new InvalidInputError(
      `a raw request needs a model with one input tensor; it has ${inputs.length} inputs`,
    );
  }
  const where = `input "${input.name}"`;
  const shape = input.shape.map((dim, axis) => (typeof dim === 'string' && axis === 0 ? 1 : dim));
  const open = shape.flatMap((dim, axis) => (typeof dim === 'string' ? [axis] : []));
  if (open.length > 1) {
    throw new InvalidInputError(
      `${where}: a raw request allows one variable dimension, the model has ${open.length}`,
    );
  }
  const size = bytesPerElement(input.dtype);
  if (open.length === 1) {
    const known = shape.reduce<number>((n, dim) => n * (typeof dim === 'number' ? dim : 1), 1);
    const elements = size === 0 ? 1 : body.length / size;
    if (known === 0 || !Number.isInteger(elements / known)) {
      throw new InvalidInputError(
        `${where}: ${body.length} bytes are no whole number of rows of ${known * size} bytes`,
      );
    }
    shape[open[0]!] = size === 0 ? 1 : elements / known;
  }
  const numbers = shape as number[];
  const data = elementsFromBinary(input.dtype, body, countElements(numbers), where);
  return {
    inputs: { [input.name]: { dtype: input.dtype, shape: numbers, data } },
    binaryByDefault: true,
  };
}

/** A response: JSON, and for binary outputs the bytes behind it. */
export interface InferResponse {
  json: Buffer;
  /** In the order of the outputs; empty when all are in the JSON. */
  binary: Uint8Array[];
  /** What the JSON was printed by, with the tensors of `printed`; undefined where it holds strings. */
  template: JsonTemplate | undefined;
  /** Names of the outputs whose numbers are in the JSON, in its order. */
  printed: readonly string[];
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

/** What stands for a tensor's data in the JSON. */
function jsonData(name: string, tensor: Tensor, printer: JsonPrinter): unknown {
  if (tensor.dtype === 'string') return tensor.data;
  if (tensor.dtype === 'float16' || tensor.dtype === 'bfloat16') {
    throw new InvalidInputError(
      `output "${name}": ${datatypes[tensor.dtype]} has no JSON form; ask for it with binary_data`,
    );
  }
  return printer.place(`output "${name}" without binary_data`);
}

/**
 * Writes an infer response.
 *
 * @throws InvalidInputError for an output that the protocol or JSON cannot carry
 */
export function encodeInferResponse(
  model: { name: string; version: string },
  request: InferRequest,
  values: Readonly<Record<string, Value>>,
): InferResponse {
  const wanted =
    request.outputs ??
    Object.keys(values).map((name) => ({ name, binary: request.binaryByDefault }));
  const binary: Uint8Array[] = [];
  const printed: string[] = [];
  let repeats = true;
  const printer = new JsonPrinter();
  const outputs = wanted.map(({ name, binary: asBinary }) => {
    const value = values[name];
    if (!value || Array.isArray(value) || value instanceof Map) {
      throw new InvalidInputError(
        `output "${name}" is no tensor; the protocol carries tensors only`,
      );
    }
    const head = { name, shape: value.shape, datatype: datatypes[value.dtype] };
    if (value.dtype === 'string') repeats = false;
    if (!asBinary) {
      if (value.dtype !== 'string') printed.push(name);
      return { ...head, data: jsonData(name, value, printer) };
    }
    const data = value.data;
    const bytes = Array.isArray(data)
      ? bytesOfStrings(data)
      : new Uint8Array(data.buffer as ArrayBuffer, data.byteOffset, data.byteLength);
    binary.push(bytes);
    return { ...head, parameters: { binary_data_size: bytes.length } };
  });
  const template = printer.template({
    model_name: model.name,
    model_version: model.version,
    ...(request.id !== undefined && { id: request.id }),
    outputs,
  });
  const tensors = printed.map((name) => values[name] as Tensor);
  return {
    json: printJson(template, tensors, false),
    binary,
    template: repeats ? template : undefined,
    printed,
  };
}
