// Inputs and outputs of servables that leave the checks to the server.
import { InvalidInputError } from '../errors.js';
import { missingInput, unknownName } from '../names.js';
import { ArraySpan, parseNumbers } from '../runtime/json-carve.js';
import {
  bytesPerElement,
  countElements,
  isTensor,
  viewOf,
  type DataByDType,
  type DType,
  type Tensor,
  type Value,
} from '../tensor.js';
import type { Inputs, OutputSelection, Servable, TensorInfo } from '../types/servable.js';

/**
 * Inputs as a servable declares them, in typed arrays. What came from a client is copied: its bytes may lie in
 * memory that the next request is read into.
 *
 * @throws InvalidInputError naming the input, what was expected and what came
 */
export function typedInputs(
  { inputs: declared }: Servable,
  inputs: Inputs,
  from: 'client' | 'program',
): Inputs {
  const names = declared.map(({ name }) => name);
  for (const name of Object.keys(inputs)) {
    if (!names.includes(name)) throw unknownName('input', name, names);
  }
  const typed: Record<string, Value> = {};
  for (const info of declared) {
    const value = inputs[info.name];
    if (value === undefined || value === null) {
      if (info.kind === 'optional') continue;
      throw missingInput(info.name, names);
    }
    typed[info.name] = isTensor(value) ? typedTensor(info, value, from) : value;
  }
  return typed;
}

function typedTensor(info: TensorInfo, tensor: Tensor, from: 'client' | 'program'): Tensor {
  const { dtype, shape, data } = tensor;
  const where = `input "${info.name}"`;
  const fits =
    dtype === info.dtype &&
    shape.length === info.shape.length &&
    info.shape.every((dim, axis) => typeof dim === 'string' || dim === shape[axis]);
  if (!fits) {
    const expected = `${info.dtype}[${info.shape.join(',')}]`;
    throw new InvalidInputError(`${where}: expected ${expected}, got ${dtype}[${shape.join(',')}]`);
  }
  const count = countElements(shape);
  const typed = from === 'client' ? ownData(dtype, data, count, where) : data;
  if (typed.length !== count) {
    throw new InvalidInputError(
      `${where}: the shape holds ${count} elements, data has ${typed.length}`,
    );
  }
  return { dtype, shape, data: typed };
}

function ownData(dtype: DType, data: unknown, count: number, where: string): DataByDType[DType] {
  if (dtype === 'string') return data as string[];
  if (data instanceof ArraySpan) return parseNumbers(data, dtype, count, false, dtype, where);
  const { buffer, byteOffset, byteLength } = data as Uint8Array;
  const bytes = buffer.slice(byteOffset, byteOffset + byteLength);
  const size = bytesPerElement(dtype);
  return viewOf(dtype, bytes, 0, Math.floor(byteLength / size));
}

/** The names that are asked for; undefined: all. Throws InvalidInputError for one that there is not. */
export function checkOutputs(
  { outputs: declared }: Servable,
  outputs: OutputSelection | undefined,
): readonly string[] | undefined {
  if (outputs === undefined) return undefined;
  const names = Array.isArray(outputs) ? (outputs as readonly string[]) : Object.keys(outputs);
  const known = declared.map(({ name }) => name);
  for (const name of names) {
    if (!known.includes(name)) throw unknownName('output', name, known);
  }
  return names;
}
