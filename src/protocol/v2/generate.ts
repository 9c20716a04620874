// The generate extension: models with text or scalar inputs, asked with plain JSON, answered once or by
// server-sent events.
//
// Source: Triton's "Generate Extension".
import { InvalidInputError } from '../../errors.js';
import { missingInput, unknownName } from '../../names.js';
import { parseCarved } from '../../runtime/json-carve.js';
import { JsonPrinter, printJson } from '../../runtime/json-print.js';
import {
  bytesPerElement,
  isTensor,
  viewOf,
  type DType,
  type Tensor,
  type Value,
} from '../../tensor.js';
import type { TensorInfo } from '../../types/servable.js';
import type { Decoding } from '../codec.js';
import { planFor, type Plan } from '../plan.js';
import { datatypeOf } from './datatypes.js';
import { schedulingOf, type Parameters } from './parameters.js';

interface GenerateRequest {
  id?: string;
  inputs: Record<string, Tensor>;
  priority?: number;
  timeoutMs?: number;
}

/** A shape of one element, or of `count` along the last dimension. */
function shapeFor({ name, shape }: TensorInfo, count: number): number[] {
  if (shape.length === 0) {
    if (count === 1) return [];
  } else {
    const last = shape.length - 1;
    const made = shape.map((dim, axis) =>
      typeof dim === 'number' ? dim : axis === last ? count : 1,
    );
    if (made.reduce((product, dim) => product * dim, 1) === count) return made;
  }
  throw new InvalidInputError(
    `input "${name}": ${count} value${count === 1 ? '' : 's'} do not fit [${shape.join(',')}]`,
  );
}

function elements(dtype: DType, values: readonly unknown[], name: string): Tensor['data'] {
  const wrong = (i: number): InvalidInputError =>
    new InvalidInputError(
      `input "${name}": expected ${datatypeOf(dtype)}, got ${JSON.stringify(values[i])?.slice(0, 100)}`,
    );
  if (dtype === 'string') {
    return values.map((value, i) => {
      if (typeof value !== 'string') throw wrong(i);
      return value;
    });
  }
  if (dtype === 'float16' || dtype === 'bfloat16') {
    throw new InvalidInputError(`input "${name}": ${datatypeOf(dtype)} has no JSON form`);
  }
  const data = viewOf(dtype, new ArrayBuffer(values.length * bytesPerElement(dtype)));
  values.forEach((value, i) => {
    if (dtype === 'bool') {
      if (typeof value !== 'boolean') throw wrong(i);
      (data as Uint8Array)[i] = Number(value);
    } else if (dtype === 'int64' || dtype === 'uint64') {
      if (!Number.isSafeInteger(value)) throw wrong(i);
      const longs = data as BigInt64Array;
      longs[i] = BigInt(value as number);
      if (longs[i] !== BigInt(value as number)) throw wrong(i);
    } else {
      if (typeof value !== 'number') throw wrong(i);
      const numbers = data as Float32Array;
      numbers[i] = value;
      if (!dtype.startsWith('float') && numbers[i] !== value) throw wrong(i);
    }
  });
  return data;
}

/**
 * Reads a generate request: each key that is an input's name is that input; `id` and `parameters` are the
 * request's, and parameters that are inputs' names fill those.
 *
 * @throws InvalidInputError naming the input and what was expected
 */
function decodeGenerate(json: unknown, inputs: readonly TensorInfo[]): GenerateRequest {
  if (typeof json !== 'object' || json === null || Array.isArray(json)) {
    throw new InvalidInputError('the request must be a JSON object');
  }
  const { id, parameters = {}, ...fields } = json as Record<string, unknown>;
  if (typeof parameters !== 'object' || parameters === null || Array.isArray(parameters)) {
    throw new InvalidInputError('parameters must be an object');
  }
  if (id !== undefined && typeof id !== 'string') {
    throw new InvalidInputError('id must be a string');
  }
  const names = inputs.map((input) => input.name);
  // A model may have inputs of these names itself.
  const all: Record<string, unknown> = { ...(parameters as Parameters), ...fields };
  const tensors = Object.create(null) as Record<string, Tensor>;
  for (const input of inputs) {
    if (!Object.hasOwn(all, input.name)) {
      if (input.kind === 'optional') continue;
      throw missingInput(input.name, names);
    }
    const value = all[input.name];
    const values: unknown[] = Array.isArray(value) ? value : [value];
    tensors[input.name] = {
      dtype: input.dtype,
      shape: shapeFor(input, values.length),
      data: elements(input.dtype, values, input.name),
    };
  }
  const unknown = Object.keys(fields).find((name) => !Object.hasOwn(tensors, name));
  if (unknown !== undefined) {
    throw unknownName('input', unknown, names);
  }
  return {
    ...(id !== undefined && { id }),
    inputs: tensors,
    ...schedulingOf(parameters as Parameters),
  };
}

/**
 * Reads a generate request: its plan and id go to `into`.
 *
 * @throws InvalidInputError as decodeGenerate(), and for JSON that does not parse
 */
export function generatePlan(
  into: Decoding<Plan>,
  json: Buffer,
  inputs: readonly TensorInfo[],
): Record<string, Tensor> {
  const { id, inputs: tensors, ...scheduling } = decodeGenerate(parseCarved(json).value, inputs);
  into.id = id ?? '';
  into.plan = planFor(scheduling);
  return tensors;
}

/**
 * A generate response: outputs beside the model's name and version; what is one element stands alone.
 *
 * @throws InvalidInputError for an output that JSON cannot say
 */
export function printGenerate(
  model: { name: string; version: string },
  id: string,
  values: Readonly<Record<string, Value>>,
): Buffer {
  const printer = new JsonPrinter();
  const tensors: Tensor[] = [];
  const outputs = Object.entries(values).map(([name, value]) => {
    if (!isTensor(value)) {
      throw new InvalidInputError(`output "${name}" is no tensor`);
    }
    const { dtype, data } = value;
    if (dtype === 'string') return [name, data.length === 1 ? (data as string[])[0] : data];
    if (dtype === 'float16' || dtype === 'bfloat16') {
      throw new InvalidInputError(`output "${name}": ${datatypeOf(dtype)} has no JSON form`);
    }
    // Flat, or a number that stands alone.
    const count = (data as Float32Array).length;
    tensors.push({ dtype, shape: count === 1 ? [] : [count], data });
    return [name, printer.place(`output "${name}"`)];
  });
  const template = printer.template({
    ...(id !== '' && { id }),
    model_name: model.name,
    model_version: model.version,
    ...Object.fromEntries(outputs),
  });
  return printJson(template, tensors, false, true);
}

/** One server-sent event. */
export function event(data: Buffer): string {
  return `data: ${data.toString()}\n\n`;
}
