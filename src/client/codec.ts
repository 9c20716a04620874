// What the client sends and reads: the Open Inference Protocol v2, binary or JSON. No I/O.
import { InvalidInputError, TercelError } from '../errors.js';
import { bytesOf, datatypeOf, dtypeOfName, elementsFromBinary } from '../protocol/v2/datatypes.js';
import { bytesPerElement, countElements, viewOf, type DType, type Tensor } from '../tensor.js';

/** An output as a request may ask for it. */
export interface OutputRequest {
  /** The so many classes of the highest values, instead of the values. */
  classes?: number;
}

export interface EncodeOptions {
  id?: string | undefined;
  /** 1 is first. */
  priority?: number | undefined;
  /** How long the request may wait and run on the server. */
  serverTimeoutMs?: number | undefined;
  /** Any others, as the protocol has them. */
  parameters?: Readonly<Record<string, unknown>> | undefined;
  /** Undefined: all. */
  outputs?: Readonly<Record<string, OutputRequest>> | undefined;
  /** Tensors behind the JSON rather than in it. */
  binary: boolean;
  /** Where an input lies in shared memory, instead of being sent. */
  spanOf?: ((name: string, bytes: Uint8Array) => SharedSpan | undefined) | undefined;
}

/** A place in a registered region. */
export interface SharedSpan {
  region: string;
  offset: number;
}

export interface EncodedRequest {
  /** The JSON, and the tensors behind it. */
  parts: Uint8Array[];
  /** Of the JSON; undefined where it is all. */
  jsonBytes: number | undefined;
}

/** A tensor's numbers as JSON: 64-bit integers with all their digits. */
function jsonData(name: string, { dtype, data }: Tensor): string {
  if (dtype === 'string') return JSON.stringify(data);
  if (dtype === 'float16' || dtype === 'bfloat16') {
    throw new InvalidInputError(`input "${name}": ${datatypeOf(dtype)} has no JSON form`);
  }
  if (dtype === 'bool') return JSON.stringify(Array.from(data as Uint8Array, (byte) => byte !== 0));
  const numbers = data as Float32Array;
  if (dtype.startsWith('float')) {
    const wrong = numbers.findIndex((value) => !Number.isFinite(value));
    if (wrong >= 0) {
      throw new InvalidInputError(
        `input "${name}": element ${wrong} is ${numbers[wrong]}, which JSON cannot say; send it as binary`,
      );
    }
  }
  return `[${numbers.join(',')}]`;
}

/**
 * Writes an infer request.
 *
 * @throws InvalidInputError for a tensor whose data does not fit its shape
 */
export function encodeRequest(
  inputs: Readonly<Record<string, Tensor>>,
  options: EncodeOptions,
): EncodedRequest {
  const { id, priority, serverTimeoutMs, outputs, binary, spanOf } = options;
  const parts: Uint8Array[] = [];
  const listed = Object.entries(inputs).map(([name, tensor]) => {
    const { dtype, shape, data } = tensor;
    const count = countElements(shape);
    if (data.length !== count) {
      throw new InvalidInputError(
        `input "${name}": shape [${shape.join(',')}] holds ${count} elements, data has ${data.length}`,
      );
    }
    const head = `"name":${JSON.stringify(name)},"shape":[${shape.join(',')}],"datatype":"${datatypeOf(dtype)}"`;
    const bytes = binary || spanOf ? bytesOf(tensor) : undefined;
    const span = bytes && spanOf?.(name, bytes);
    if (span) {
      return (
        `{${head},"parameters":{"shared_memory_region":${JSON.stringify(span.region)},` +
        `"shared_memory_offset":${span.offset},"shared_memory_byte_size":${bytes.length}}}`
      );
    }
    if (!binary) return `{${head},"data":${jsonData(name, tensor)}}`;
    parts.push(bytes!);
    return `{${head},"parameters":{"binary_data_size":${bytes!.length}}}`;
  });
  const wanted =
    outputs &&
    Object.entries(outputs).map(([name, { classes }]) => ({
      name,
      parameters: {
        ...(binary && { binary_data: true }),
        ...(classes !== undefined && { classification: classes }),
      },
    }));
  const parameters = {
    ...options.parameters,
    ...(priority !== undefined && { priority }),
    ...(serverTimeoutMs !== undefined && { timeout: Math.ceil(serverTimeoutMs * 1000) }),
    ...(binary && !wanted && { binary_data_output: true }),
  };
  const rest = {
    ...(id !== undefined && { id }),
    ...(wanted && { outputs: wanted }),
    ...(Object.keys(parameters).length > 0 && { parameters }),
  };
  const tail = JSON.stringify(rest).slice(1);
  const json = Buffer.from(`{"inputs":[${listed.join(',')}]${tail === '}' ? '' : ','}${tail}`);
  return { parts: [json, ...parts], jsonBytes: parts.length > 0 ? json.length : undefined };
}

/** What an infer request gave. */
export interface InferResult<Outputs = Record<string, Tensor>> {
  model: string;
  version: string | undefined;
  id: string | undefined;
  outputs: Outputs;
}

interface JsonOutput {
  name: string;
  shape: number[];
  datatype: string;
  data?: unknown[];
  parameters?: { binary_data_size?: number };
}

/** The server answered something that is no answer. */
function malformed(what: string): TercelError {
  return new TercelError('RUN', `the server's answer is not the protocol's: ${what}`);
}

function fromJson(name: string, dtype: DType, shape: number[], data: unknown[]): Tensor['data'] {
  const flat: unknown[] = data.flat(100);
  const count = countElements(shape);
  if (flat.length !== count) {
    throw malformed(`output "${name}" has ${flat.length} elements, its shape ${count}`);
  }
  if (dtype === 'string') return flat.map(String);
  const view = viewOf(dtype, new ArrayBuffer(count * bytesPerElement(dtype)));
  if (dtype === 'int64' || dtype === 'uint64') {
    const longs = view as BigInt64Array;
    flat.forEach((value, i) => {
      // JSON.parse rounded what is larger.
      if (!Number.isSafeInteger(value)) {
        throw malformed(
          `output "${name}" has integers beyond 2^53, which JSON numbers cannot keep; ask for binary`,
        );
      }
      longs[i] = BigInt(value as number);
    });
    return view;
  }
  const numbers = view as Float32Array;
  flat.forEach((value, i) => (numbers[i] = Number(value)));
  return view;
}

/**
 * Reads an infer response.
 *
 * @param jsonBytes the header's; undefined where the body is JSON
 * @throws TercelError (RUN) where it is none
 */
export function decodeResponse(body: Uint8Array, jsonBytes: number | undefined): InferResult {
  const end = jsonBytes ?? body.length;
  if (end > body.length) throw malformed(`the JSON has ${end} bytes, the body ${body.length}`);
  let json: {
    model_name: string;
    model_version?: string;
    id?: string;
    outputs: JsonOutput[];
  };
  try {
    json = JSON.parse(Buffer.from(body.buffer, body.byteOffset, end).toString()) as typeof json;
  } catch (cause) {
    throw malformed((cause as Error).message);
  }
  if (!Array.isArray(json.outputs)) throw malformed('it has no outputs');
  let at = end;
  const outputs = json.outputs.map(({ name, shape, datatype, data, parameters }) => {
    const dtype = dtypeOfName(datatype, `output "${name}"`);
    const size = parameters?.binary_data_size;
    if (size === undefined) {
      return [name, { dtype, shape, data: fromJson(name, dtype, shape, data ?? []) }];
    }
    const bytes = body.subarray(at, at + size);
    at += size;
    const elements = elementsFromBinary(dtype, bytes, countElements(shape), `output "${name}"`);
    return [name, { dtype, shape, data: elements }];
  });
  return {
    model: json.model_name,
    version: json.model_version,
    id: json.id,
    outputs: Object.fromEntries(outputs) as Record<string, Tensor>,
  };
}
