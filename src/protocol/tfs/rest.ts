// TensorFlow Serving's REST form: predict by rows and by columns, classify, regress.
//
// Source: TensorFlow Serving's "RESTful API" document.
import {
  carvedArray,
  parseCarved,
  parseNumbers,
  shapeOf,
  type ArraySpan,
  type CarvedJson,
} from '../../runtime/json-carve.js';
import { JsonPrinter, printJson } from '../../runtime/json-print.js';
import { InvalidInputError } from '../../errors.js';
import { unknownName } from '../../names.js';
import { bytesPerElement, countElements, viewOf, type DType, type Tensor } from '../../tensor.js';
import type { TensorInfo } from '../../types/servable.js';
import { textOfBase64 } from '../v2/datatypes.js';

/** The one signature that an ONNX model has. */
export const SIGNATURE = 'serving_default';

export interface JsonObject {
  [key: string]: unknown;
}

export function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Throws InvalidInputError for a signature that is not there. */
export function checkSignature(name: unknown): void {
  if (name === undefined || name === '' || name === SIGNATURE) return;
  throw new InvalidInputError(
    `signature_name: expected "${SIGNATURE}", the only signature of an ONNX model, got ${JSON.stringify(name)}`,
  );
}

/** A predict request: by rows the answer has a row for each, by columns the outputs whole. */
export interface PredictRequest {
  inputs: Record<string, Tensor>;
  byRows: boolean;
}

/** Bytes as the protocol has them: {"b64": "..."}. */
export function isBase64(value: unknown): value is { b64: string } {
  return isObject(value) && typeof value['b64'] === 'string' && Object.keys(value).length === 1;
}

/** A text put together from pieces of the body: errors shall say where in the body they are. */
class Joined {
  readonly #parts: Uint8Array[] = [Buffer.from('[')];
  readonly #starts: { at: number; body: number }[] = [];
  #bytes = 1;

  add(text: Uint8Array, begin: number, end: number, inBody: number): void {
    if (this.#parts.length > 1) {
      this.#parts.push(Buffer.from(','));
      this.#bytes++;
    }
    this.#starts.push({ at: this.#bytes, body: inBody });
    this.#parts.push(text.subarray(begin, end));
    this.#bytes += end - begin;
  }

  span(): ArraySpan {
    const text = Buffer.concat([...this.#parts, Buffer.from(']')], this.#bytes + 1);
    return { text, begin: 0, end: text.length };
  }

  /** Throws what `work` throws, with positions of the body. */
  located<T>(work: () => T): T {
    try {
      return work();
    } catch (error) {
      if (!(error instanceof InvalidInputError)) throw error;
      const message = error.message.replace(/\bbyte (\d+)/, (_all, at: string) => {
        const place = this.#starts.findLast((start) => start.at <= Number(at)) ?? this.#starts[0]!;
        return `byte ${place.body + Number(at) - place.at}`;
      });
      throw new InvalidInputError(message, { cause: error });
    }
  }
}

/** What a number's text is in the envelope: a span of its own, or true and false as they are. */
function addPiece(
  joined: Joined,
  json: CarvedJson,
  value: unknown,
  dtype: DType,
  where: string,
): void {
  const span = carvedArray(json, value);
  if (span) joined.add(span.text, span.begin, span.end, span.begin);
  else if (typeof value === 'boolean') {
    const word = Buffer.from(String(value));
    joined.add(word, 0, word.length, 0);
  } else {
    const got = value === null ? 'null' : isObject(value) ? 'an object' : typeof value;
    throw new InvalidInputError(
      `${where}: expected ${dtype} numbers, got ${Array.isArray(value) ? 'strings' : got}`,
    );
  }
}

/** Of lists in lists. */
const MAX_RANK = 32;

/** Strings, nested in any way of one length at each depth. */
function strings(value: unknown, where: string): { shape: number[]; data: string[] } {
  const data: string[] = [];
  const walk = (item: unknown, depth = 0): number[] => {
    if (Array.isArray(item)) {
      if (depth === MAX_RANK) {
        throw new InvalidInputError(`${where}: lists are nested more than ${MAX_RANK} deep`);
      }
      const shapes = item.map((each) => walk(each, depth + 1));
      const [first = []] = shapes;
      if (shapes.some((shape) => shape.join() !== first.join())) {
        throw new InvalidInputError(`${where}: lists at one depth have different lengths`);
      }
      return [item.length, ...first];
    }
    if (isBase64(item)) data.push(textOfBase64(item.b64, where));
    else if (typeof item === 'string') data.push(item);
    else {
      throw new InvalidInputError(
        `${where}: expected strings or {"b64": "..."}, got ${item === null ? 'null' : typeof item}`,
      );
    }
    return [];
  };
  return { shape: walk(value), data };
}

/** One tensor from a value for each row. */
function tensorOfRows(
  json: CarvedJson,
  rows: readonly unknown[],
  dtype: DType,
  where: string,
): Tensor {
  if (dtype === 'string') {
    for (const row of rows) noNumbers(json, row, where);
    return { dtype, ...strings(rows, where) };
  }
  const joined = new Joined();
  for (const row of rows) addPiece(joined, json, row, dtype, where);
  const span = joined.span();
  return joined.located(() => numbers(span, dtype, where));
}

/** A whole tensor from one value: nested lists, or a scalar. */
function tensorOfValue(json: CarvedJson, value: unknown, dtype: DType, where: string): Tensor {
  if (dtype === 'string') {
    noNumbers(json, value, where);
    return { dtype, ...strings(value, where) };
  }
  const span = carvedArray(json, value);
  if (span && span.text[span.begin] === OPEN) return numbers(span, dtype, where);
  const { shape: _one, ...scalar } = tensorOfRows(json, [value], dtype, where);
  return { ...scalar, shape: [] };
}

const OPEN = '['.charCodeAt(0);

function noNumbers(json: CarvedJson, value: unknown, where: string): void {
  if (carvedArray(json, value)) {
    throw new InvalidInputError(`${where}: expected strings or {"b64": "..."}, got numbers`);
  }
}

function numbers(span: ArraySpan, dtype: Exclude<DType, 'string'>, where: string): Tensor {
  if (dtype === 'float16' || dtype === 'bfloat16') {
    throw new InvalidInputError(`${where}: ${dtype} has no JSON form; send it over gRPC`);
  }
  const shape = shapeOf(span, where);
  const data = parseNumbers(span, dtype, countElements(shape), true, dtype, where);
  return { dtype, shape, data };
}

function inputNamed(inputs: readonly TensorInfo[], name: string): TensorInfo {
  const input = inputs.find((each) => each.name === name);
  if (input) return input;
  throw unknownName(
    'input',
    name,
    inputs.map((input) => input.name),
  );
}

function onlyInput(inputs: readonly TensorInfo[], what: string): TensorInfo {
  if (inputs.length === 1) return inputs[0]!;
  throw new InvalidInputError(
    `${what}: the model has ${inputs.length} inputs, so values must be given by name`,
  );
}

/**
 * Reads a predict request.
 *
 * @param inputs the model's
 * @throws InvalidInputError naming the input and what was expected
 */
export function decodePredict(text: Uint8Array, inputs: readonly TensorInfo[]): PredictRequest {
  const json = parseCarved(text, 'rows');
  const body = json.value;
  if (!isObject(body)) throw new InvalidInputError('the request must be a JSON object');
  checkSignature(body['signature_name']);
  const { instances, inputs: columns } = body;
  if ((instances === undefined) === (columns === undefined)) {
    throw new InvalidInputError(
      'the request must have exactly one of "instances" (by rows) and "inputs" (by columns)',
    );
  }
  if (columns !== undefined) {
    if (!isObject(columns) || isBase64(columns)) {
      const { name, dtype } = onlyInput(inputs, 'inputs');
      const tensor = tensorOfValue(json, columns, dtype, `input "${name}"`);
      return { inputs: { [name]: tensor }, byRows: false };
    }
    const tensors = Object.entries(columns).map(([name, value]) => [
      name,
      tensorOfValue(json, value, inputNamed(inputs, name).dtype, `input "${name}"`),
    ]);
    return { inputs: Object.fromEntries(tensors) as Record<string, Tensor>, byRows: false };
  }
  // Rows of plain numbers were cut out whole.
  if (carvedArray(json, instances)) {
    const { name, dtype } = onlyInput(inputs, 'instances');
    const tensor = tensorOfValue(json, instances, dtype, `input "${name}"`);
    if (tensor.shape.length === 0 || tensor.shape[0] === 0) throw noRows();
    return { inputs: { [name]: tensor }, byRows: true };
  }
  if (!Array.isArray(instances) || instances.length === 0) throw noRows();
  const rows = instances as unknown[];
  const [first] = rows;
  if (!isObject(first) || isBase64(first)) {
    const { name, dtype } = onlyInput(inputs, 'instances');
    const tensor = tensorOfRows(json, rows, dtype, `input "${name}"`);
    return { inputs: { [name]: tensor }, byRows: true };
  }
  const tensors = Object.create(null) as Record<string, Tensor>;
  for (const name of Object.keys(first)) {
    const { dtype } = inputNamed(inputs, name);
    const values = rows.map((row, i) => {
      if (isObject(row) && Object.hasOwn(row, name)) return row[name];
      throw new InvalidInputError(
        `instances[${i}]: "${name}", which the first row has, is missing`,
      );
    });
    tensors[name] = tensorOfRows(json, values, dtype, `input "${name}"`);
  }
  rows.forEach((row, i) => {
    const extra = Object.keys(row as JsonObject).find((name) => !Object.hasOwn(first, name));
    if (extra !== undefined) {
      throw new InvalidInputError(`instances[${i}]: "${extra}" is not in the first row`);
    }
  });
  return { inputs: tensors, byRows: true };
}

function noRows(): InvalidInputError {
  return new InvalidInputError('"instances" must be a list of one row or more');
}

/** Prints tensors as JSON values are nested; numbers by a place for the native printer. */
export class Printer {
  readonly #printer = new JsonPrinter();
  readonly #tensors: Tensor[] = [];

  value(name: string, tensor: Tensor): unknown {
    if (tensor.dtype === 'string') return nestedStrings(name, tensor as Tensor<'string'>);
    if (tensor.dtype === 'float16' || tensor.dtype === 'bfloat16') {
      throw new InvalidInputError(
        `output "${name}": ${tensor.dtype} has no JSON form; ask for it over gRPC`,
      );
    }
    this.#tensors.push(tensor);
    return this.#printer.place(`output "${name}"`);
  }

  print(value: unknown): Buffer {
    return printJson(this.#printer.template(value), this.#tensors, true, true);
  }
}

/** Outputs whose names end so are bytes, for the client: base64. */
const BYTES_SUFFIX = '_bytes';

function nestedStrings(name: string, { shape, data }: Tensor<'string'>): unknown {
  let at = 0;
  const next = (): unknown => {
    const text = data[at++]!;
    return name.endsWith(BYTES_SUFFIX) ? { b64: Buffer.from(text).toString('base64') } : text;
  };
  const nest = (axis: number): unknown =>
    axis === shape.length ? next() : Array.from({ length: shape[axis]! }, () => nest(axis + 1));
  return nest(0);
}

/** One row of a tensor. */
function rowOf(tensor: Tensor, row: number): Tensor {
  const shape = tensor.shape.slice(1);
  const count = countElements(shape);
  if (tensor.dtype === 'string') {
    const data = tensor.data as string[];
    return { dtype: 'string', shape, data: data.slice(row * count, (row + 1) * count) };
  }
  const view = tensor.data as Float32Array;
  const size = bytesPerElement(tensor.dtype);
  return {
    dtype: tensor.dtype,
    shape,
    data: viewOf(tensor.dtype, view.buffer, view.byteOffset + row * count * size, count),
  };
}

/** The rows that all outputs have. Throws InvalidInputError where they differ. */
function rowsOf(outputs: readonly (readonly [string, Tensor])[]): number {
  const [first] = outputs;
  const rows = first?.[1].shape[0];
  for (const [name, { shape }] of outputs) {
    if (shape.length === 0 || shape[0] !== rows) {
      throw new InvalidInputError(
        `output "${name}" has shape [${shape.join(',')}], not a row for each instance; ask by columns ("inputs")`,
      );
    }
  }
  return rows ?? 0;
}

/**
 * Writes a predict response: `predictions` by rows, `outputs` by columns; a single output goes unnamed.
 *
 * @throws InvalidInputError for outputs that have no JSON form, or no rows
 */
export function encodePredict(values: Readonly<Record<string, Tensor>>, byRows: boolean): Buffer {
  const outputs = Object.entries(values);
  const printer = new Printer();
  const single = outputs.length === 1 ? outputs[0] : undefined;
  if (!byRows) {
    const all = single
      ? printer.value(...single)
      : Object.fromEntries(outputs.map(([name, tensor]) => [name, printer.value(name, tensor)]));
    return printer.print({ outputs: all });
  }
  const rows = rowsOf(outputs);
  if (single) return printer.print({ predictions: printer.value(...single) });
  const predictions = Array.from({ length: rows }, (_, row) =>
    Object.fromEntries(
      outputs.map(([name, tensor]) => [name, printer.value(name, rowOf(tensor, row))]),
    ),
  );
  return printer.print({ predictions });
}

/** A path's parameters: the verb comes with the last of them. */
export interface TfsParams {
  model: string;
  version?: string;
}

const verbs = /^(.+):(predict|classify|regress)$/;

/** What a path names, and what shall be done with it; no verb where there is none. */
export function verbOf(params: TfsParams): { named: TfsParams; verb: string | undefined } {
  const last = params.version ?? params.model;
  const [, name, verb] = verbs.exec(last) ?? [];
  if (name === undefined) return { named: params, verb: undefined };
  const named =
    params.version === undefined ? { model: name } : { model: params.model, version: name };
  return { named, verb };
}
