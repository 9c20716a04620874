// Open Inference Protocol v2 with Triton's binary tensors: bytes <-> tensors. Pure: no I/O, no Fastify.
//
// Sources: the KServe project's "Open Inference Protocol (v2)" and Triton's "Binary Tensor Data
// Extension" and "HTTP/REST" documents.
import {
  carvedArray,
  parseNumbers,
  type ArraySpan,
  type CarvedJson,
  type Later,
} from '../../runtime/json-carve.js';
import { JsonPrinter, type JsonTemplate } from '../../runtime/json-print.js';
import { InvalidInputError } from '../../errors.js';
import {
  bytesPerElement,
  countElements,
  type DataByDType,
  type DType,
  type Tensor,
  type Value,
} from '../../tensor.js';
import type { TensorInfo } from '../../types/servable.js';
import {
  answerOutputs,
  requestedOutput,
  type InferRequest,
  type RequestedOutput,
} from './request.js';
import { elementsInSpan, spanOf, spanParameters, type Regions } from './spans.js';
import { schedulingOf } from './parameters.js';
import { type Answering } from './classification.js';
import { bytesOf, datatypeOf, dtypeOfName, elementsFromBinary } from './datatypes.js';

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

function elementsFromJson(
  json: CarvedJson,
  dtype: DType,
  data: unknown,
  count: number,
  where: string,
  later: Later | undefined,
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
      `${where}: ${datatypeOf(dtype)} has no JSON form; send it as binary`,
    );
  }
  if (dtype !== 'string') {
    return parseNumbers(span, dtype, count, false, datatypeOf(dtype), where, later);
  }
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

function parseOutputs(
  body: JsonObject,
  binaryByDefault: boolean,
  regions: Regions | undefined,
): RequestedOutput[] | undefined {
  const outputs = body['outputs'];
  if (outputs === undefined) return undefined;
  if (!Array.isArray(outputs)) throw new InvalidInputError('outputs must be an array');
  if (outputs.length === 0) return undefined;
  return outputs.map((output: unknown, i) => {
    if (!isObject(output) || typeof output['name'] !== 'string') {
      throw new InvalidInputError(`outputs[${i}]: a name is missing`);
    }
    const { name } = output;
    const parameters = parametersOf(output, `output "${name}"`);
    return requestedOutput(name, parameters, binaryByDefault, regions);
  });
}

/**
 * Reads an infer request.
 *
 * @param carved the JSON part
 * @param binary the bytes behind it, in the order of the inputs that have `binary_data_size`
 * @param regions where shared memory lies; undefined where it is not allowed
 * @param later takes the work of long texts: the inputs are complete when it is done
 * @throws InvalidInputError naming the input and what was expected
 */
export function decodeInferRequest(
  carved: CarvedJson,
  binary: Uint8Array,
  regions?: Regions,
  later?: Later,
): InferRequest {
  const json = carved.value;
  if (!isObject(json)) throw new InvalidInputError('the request must be a JSON object');
  const listed = json['inputs'];
  if (!Array.isArray(listed)) throw new InvalidInputError('inputs must be an array');
  const id = json['id'];
  if (id !== undefined && typeof id !== 'string')
    throw new InvalidInputError('id must be a string');
  const parameters = parametersOf(json, 'request');
  const binaryByDefault = parameters['binary_data_output'] === true;

  // Without a prototype: a name is the client's, and may be "__proto__".
  const inputs = Object.create(null) as Record<string, Tensor>;
  let at = 0;
  for (const [i, input] of listed.entries() as ArrayIterator<[number, unknown]>) {
    if (!isObject(input) || typeof input['name'] !== 'string') {
      throw new InvalidInputError(`inputs[${i}]: a name is missing`);
    }
    const name = input['name'];
    const where = `input "${name}"`;
    if (Object.hasOwn(inputs, name)) throw new InvalidInputError(`${where} is there twice`);
    const dtype = dtypeOfName(input['datatype'], where);
    const shape = shapeOf(input, where);
    let count: number;
    try {
      count = countElements(shape);
    } catch (cause) {
      throw new InvalidInputError(`${where}: ${(cause as Error).message}`, { cause });
    }
    const own = parametersOf(input, where);
    const span = spanOf(own, where, regions);
    const size = own['binary_data_size'];
    let data: DataByDType[DType];
    if (span) {
      if (size !== undefined || input['data'] !== undefined) {
        throw new InvalidInputError(`${where}: shared memory and data exclude each other`);
      }
      data = elementsInSpan(span, regions!, dtype, count, where);
    } else if (size === undefined) {
      data = elementsFromJson(carved, dtype, input['data'], count, where, later);
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
  const outputs = parseOutputs(json, binaryByDefault, regions);
  return {
    ...(id !== undefined && { id }),
    inputs,
    ...(outputs && { outputs }),
    binaryByDefault,
    ...schedulingOf(parameters),
  };
}

/**
 * Reads a raw request (`Inference-Header-Content-Length: 0`): the body is the one input, of batch 1 and
 * with at most one more variable dimension. Outputs are binary.
 *
 * @throws InvalidInputError when the model or the length does not allow it
 */
export function decodeRawRequest(inputs: readonly TensorInfo[], body: Uint8Array): InferRequest {
  const input = inputs[0];
  if (inputs.length !== 1 || !input || (input.kind ?? 'tensor') !== 'tensor') {
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

/** A response: JSON that is still to be printed, and for binary outputs the bytes behind it. */
export interface InferResponse {
  /** For printJson(), with the tensors. */
  template: JsonTemplate;
  tensors: readonly Tensor[];
  /** In the order of the outputs; empty when all are in the JSON. */
  binary: Uint8Array[];
  /** Whether the template is good for other values of the same shapes: not where it holds strings. */
  repeats: boolean;
  /** Names of the outputs whose numbers are in the JSON, in its order. */
  printed: readonly string[];
}

/** What stands for a tensor's data in the JSON. */
function jsonData(name: string, tensor: Tensor, printer: JsonPrinter): unknown {
  if (tensor.dtype === 'string') return tensor.data;
  if (tensor.dtype === 'float16' || tensor.dtype === 'bfloat16') {
    throw new InvalidInputError(
      `output "${name}": ${datatypeOf(tensor.dtype)} has no JSON form; ask for it with binary_data`,
    );
  }
  return printer.place(`output "${name}" without binary_data`);
}

/**
 * Writes an infer response.
 *
 * @param id of the request; '' for none
 * @throws InvalidInputError for an output that the protocol or JSON cannot carry
 */
export function encodeInferResponse(
  model: Answering,
  request: Pick<InferRequest, 'outputs' | 'binaryByDefault'>,
  id: string,
  values: Readonly<Record<string, Value>>,
): InferResponse {
  const binary: Uint8Array[] = [];
  const printed: string[] = [];
  let repeats = true;
  const printer = new JsonPrinter();
  const outputs = answerOutputs(model, request, values).map((output) => {
    const { name, tensor, span } = output;
    const head = { name, shape: tensor.shape, datatype: datatypeOf(tensor.dtype) };
    if (tensor.dtype === 'string' || span) repeats = false;
    if (span) return { ...head, parameters: spanParameters(span) };
    if (!output.binary) {
      if (tensor.dtype !== 'string') printed.push(name);
      return { ...head, data: jsonData(name, tensor, printer) };
    }
    const bytes = bytesOf(tensor);
    binary.push(bytes);
    return { ...head, parameters: { binary_data_size: bytes.length } };
  });
  const template = printer.template({
    ...(id !== '' && { id }),
    model_name: model.name,
    model_version: model.version,
    outputs,
  });
  const tensors = printed.map((name) => values[name] as Tensor);
  return { template, tensors, binary, repeats, printed };
}
