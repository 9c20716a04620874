// TensorFlow Serving's classify and regress: examples of features in, classes or one value a row out.
//
// Sources: TensorFlow Serving's "RESTful API" document, classification.proto and regression.proto.
import { InvalidInputError } from '../../errors.js';
import { parseCarved } from '../../runtime/json-carve.js';
import { bytesPerElement, countElements, viewOf, type DType, type Tensor } from '../../tensor.js';
import type { TensorInfo } from '../../types/servable.js';
import { checkSignature, isBase64, isObject, Printer } from './rest.js';
import { textOf, textOfBase64 } from '../v2/datatypes.js';

/** The features of a classify or regress request, as the model's inputs. */
export function decodeExamples(
  text: Uint8Array,
  inputs: readonly TensorInfo[],
): Record<string, Tensor> {
  const json = parseCarved(text).value;
  if (!isObject(json)) throw new InvalidInputError('the request must be a JSON object');
  checkSignature(json['signature_name']);
  const { context = {}, examples } = json;
  if (!isObject(context)) throw new InvalidInputError('context: expected features by name');
  if (!Array.isArray(examples) || examples.length === 0) {
    throw new InvalidInputError('examples: expected a list of one example or more');
  }
  return tensorsOfExamples(
    examples.map((example: unknown, i) => {
      if (!isObject(example)) {
        throw new InvalidInputError(`examples[${i}]: expected features by name`);
      }
      const features = new Map<string, unknown[]>();
      for (const [name, value] of Object.entries({ ...context, ...example })) {
        features.set(name, Array.isArray(value) ? value : [value]);
      }
      return features;
    }),
    inputs,
  );
}

/**
 * Tensors of one row an example: a feature's values are what the input has behind its first dimension.
 *
 * @throws InvalidInputError naming the example and feature
 */
export function tensorsOfExamples(
  examples: readonly ReadonlyMap<string, readonly unknown[]>[],
  inputs: readonly TensorInfo[],
): Record<string, Tensor> {
  const tensors = Object.create(null) as Record<string, Tensor>;
  for (const { name, dtype, shape: declared } of inputs) {
    const rows = examples.map((features, i) => {
      const values = features.get(name);
      if (values) return values;
      throw new InvalidInputError(`examples[${i}]: feature "${name}" is missing`);
    });
    const width = rows[0]!.length;
    const wrong = rows.findIndex((row) => row.length !== width);
    if (wrong >= 0) {
      throw new InvalidInputError(
        `examples[${wrong}]: feature "${name}" has ${rows[wrong]!.length} values, the first example has ${width}`,
      );
    }
    // Behind the first dimension: as declared where it says, else one list.
    const fixed = declared.slice(1).filter((dim) => typeof dim === 'number');
    const isFixed = fixed.length === declared.length - 1;
    const shape = [rows.length, ...(declared.length > 1 ? (isFixed ? fixed : [width]) : [])];
    if (countElements(shape) !== rows.length * width) {
      throw new InvalidInputError(
        `examples[0]: feature "${name}" has ${width} values, the model's input [${declared.join(',')}]`,
      );
    }
    tensors[name] = { dtype, shape, data: featureData(dtype, rows.flat(), name) };
  }
  for (const [i, features] of examples.entries()) {
    for (const name of features.keys()) inputNamedIn(inputs, name, i);
  }
  return tensors;
}

function inputNamedIn(inputs: readonly TensorInfo[], name: string, example: number): void {
  if (inputs.some((input) => input.name === name)) return;
  throw new InvalidInputError(
    `examples[${example}]: the model has no input "${name}"; it has ${inputs.map((i) => `"${i.name}"`).join(', ')}`,
  );
}

const integers = new Set<DType>(['int8', 'int16', 'int32', 'uint8', 'uint16', 'uint32']);

function featureData(dtype: DType, values: readonly unknown[], name: string): Tensor['data'] {
  const wrong = (value: unknown): InvalidInputError =>
    new InvalidInputError(
      `feature "${name}": expected ${dtype}, got ${isObject(value) ? 'an object' : JSON.stringify(value)}`,
    );
  if (dtype === 'string') {
    return values.map((value) => {
      if (isBase64(value)) return textOfBase64(value.b64, `feature "${name}"`);
      if (typeof value !== 'string') throw wrong(value);
      return value;
    });
  }
  if (dtype === 'float16' || dtype === 'bfloat16') {
    throw new InvalidInputError(`feature "${name}": examples have no ${dtype}; ask with predict`);
  }
  const data = viewOf(dtype, new ArrayBuffer(values.length * bytesPerElement(dtype)));
  if (dtype === 'int64' || dtype === 'uint64') {
    const longs = data as BigInt64Array;
    values.forEach((value, i) => {
      if (typeof value === 'bigint') longs[i] = value;
      else if (Number.isSafeInteger(value)) longs[i] = BigInt(value as number);
      else throw wrong(value);
      if (longs[i] !== BigInt(value as number)) throw wrong(String(value));
    });
    return data;
  }
  const numbers = data as Float32Array;
  values.forEach((value, i) => {
    const number = typeof value === 'boolean' ? Number(value) : value;
    if (typeof number !== 'number' && typeof number !== 'bigint') throw wrong(value);
    numbers[i] = Number(number);
    const exact = integers.has(dtype) || dtype === 'bool';
    if (exact && numbers[i] !== Number(number)) throw wrong(String(value));
  });
  return data;
}

/** Of the floats, those whose values JavaScript reads as numbers on every Node. */
function isFloat(dtype: DType): boolean {
  return dtype === 'float32' || dtype === 'float64';
}

/** A class and its score. */
export interface Scored {
  label: string;
  score: number;
}

/**
 * The classes of each row: the scores of the one output that has a float for each class, with the names
 * that an output of strings, the labels of the configuration, or the indices give them.
 *
 * @throws InvalidInputError for a model without such an output
 */
export function classesOf(
  values: Readonly<Record<string, Tensor>>,
  classNames: Readonly<Record<string, readonly string[]>>,
): Scored[][] {
  const outputs = Object.entries(values);
  const found = outputs.find(([, { dtype, shape }]) => isFloat(dtype) && shape.length === 2);
  if (!found) {
    throw new InvalidInputError(
      'the model cannot classify: no output has a float score for each class, [rows, classes]',
    );
  }
  const [name, scores] = found;
  const [rows, classes] = scores.shape as [number, number];
  const numbers = scores.data as Float32Array;
  const texts = outputs.find(
    ([, { dtype, shape }]) => dtype === 'string' && shape.join() === scores.shape.join(),
  )?.[1].data as string[] | undefined;
  const names = classNames[name];
  return Array.from({ length: rows }, (_, row) =>
    Array.from({ length: classes }, (__, k) => ({
      label: texts?.[row * classes + k] ?? names?.[k] ?? String(k),
      score: numbers[row * classes + k]!,
    })),
  );
}

/** One value a row. Throws InvalidInputError for a model that has none. */
export function regressionsOf(values: Readonly<Record<string, Tensor>>): Tensor {
  const found = Object.values(values).find(
    ({ dtype, shape }) =>
      isFloat(dtype) && (shape.length === 1 || (shape.length === 2 && shape[1] === 1)),
  );
  if (!found) {
    throw new InvalidInputError('the model cannot regress: no output has one float a row');
  }
  return { ...found, shape: [found.shape[0]!] };
}

/** `{"results": [[["label", score], ...], ...]}` */
export function encodeClassify(rows: readonly (readonly Scored[])[]): Buffer {
  const printer = new Printer();
  return printer.print({
    results: rows.map((row) =>
      row.map(({ label, score }) => [
        label,
        printer.value('scores', { dtype: 'float32', shape: [], data: Float32Array.of(score) }),
      ]),
    ),
  });
}

/** `{"results": [value, ...]}` */
export function encodeRegress(values: Tensor): Buffer {
  const printer = new Printer();
  return printer.print({ results: printer.value('values', values) });
}

/** A message of protocol buffers as a plain object. */
type Message = Record<string, unknown>;

type Features = { feature?: Record<string, Message> } | undefined;

/** The features of a classify or regress request, by example. Throws InvalidInputError. */
export function examplesOf(request: Message): Map<string, unknown[]>[] {
  const input = (request['input'] ?? {}) as Message;
  const list = (input['example_list'] ?? input['example_list_with_context']) as
    { examples: { features: Features }[]; context?: { features: Features } } | undefined;
  if (!list || list.examples.length === 0) {
    throw new InvalidInputError('input: expected a list of one example or more');
  }
  const features = (of: Features): [string, unknown[]][] =>
    Object.entries(of?.feature ?? {}).map(([name, feature]) => {
      const kind = feature['kind'] as string | undefined;
      const values = (feature[kind ?? ''] as { value: unknown[] } | undefined)?.value ?? [];
      return [
        name,
        kind === 'bytes_list'
          ? (values as Buffer[]).map((bytes) => textOf(bytes, `feature "${name}"`))
          : values,
      ];
    });
  const context = features(list.context?.features);
  return list.examples.map((example) => new Map([...context, ...features(example.features)]));
}
