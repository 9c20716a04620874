// Tensors <-> the addon: the JS side of the layout in native/addon/values.h.
import { InvalidInputError } from '../errors.js';
import { missingInput, unknownName } from '../names.js';
import type { NativeType, NativeValue } from '../native.js';
import {
  dtypeCodes,
  dtypeFromCode,
  Float16,
  viewOf,
  type DataByDType,
  type DType,
  type Tensor,
  type Value,
} from '../tensor.js';
import type { ValueMetadata } from '../types/value.js';
import { ArraySpan } from './json-carve.js';
import {
  BODY,
  ensureMeta,
  FLAG_PACKED,
  fromScratch,
  JSON_TEXT,
  MAX_ARGS,
  MAX_RANK,
  meta,
  META_FLAGS,
  META_INPUTS,
  META_OUTPUTS,
  NESTED,
  SEQUENCE,
} from './layout.js';
import type { OutputSelection } from '../types/servable.js';
import { OutputSelector, type Selection } from './selection.js';

const STRING_CODE = dtypeCodes.string;
const FLOAT16_CODE = dtypeCodes.float16;

const kinds = ['unknown', 'tensor', 'sequence', 'map', 'opaque', 'sparse', 'optional'] as const;

function innermost(type: NativeType): NativeType {
  return type.element ? innermost(type.element) : type;
}

function describe(value: NativeValue): ValueMetadata {
  const inner = innermost(value);
  return {
    name: value.name,
    kind: (kinds[value.kind] ?? 'tensor') as ValueMetadata['kind'],
    dtype: dtypeFromCode(inner.dtype) ?? (`onnx type ${inner.dtype}` as DType),
    shape: inner.shape,
  };
}

/** Reads and writes the calls of one model. */
export class Marshaller {
  readonly inputs: readonly ValueMetadata[];
  readonly outputs: readonly ValueMetadata[];
  readonly all: Selection;
  readonly #inputNames: string[];
  readonly #inputOptional: boolean[];
  readonly #inputDTypes: DType[];
  readonly #inputCodes: number[];
  readonly #outputNames: string[];
  readonly #selector: OutputSelector;
  readonly #args: unknown[] = [];
  #argCount = 0;

  constructor(inputs: NativeValue[], outputs: NativeValue[]) {
    this.inputs = inputs.map(describe);
    this.outputs = outputs.map(describe);
    this.#inputNames = inputs.map((input) => input.name);
    this.#inputOptional = this.inputs.map((input) => input.kind === 'optional');
    this.#inputDTypes = this.inputs.map((input) => input.dtype);
    this.#inputCodes = inputs.map((input) => innermost(input).dtype);
    this.#outputNames = outputs.map((output) => output.name);
    this.#selector = new OutputSelector(this.#outputNames);
    this.all = this.#selector.all;
    ensureMeta(inputs.length + outputs.length);
  }

  /** Throws InvalidInputError for a name that the model has not. */
  select(outputs: OutputSelection): Selection {
    return this.#selector.select(outputs);
  }

  /** A selection of its own, to be kept by the caller. */
  selectNew(outputs: OutputSelection): Selection {
    return this.#selector.selectNew(outputs);
  }

  /** Writes a request into meta and its data into args. */
  encode(inputs: Readonly<Record<string, Value>>, selection: Selection): void {
    this.#argCount = 0;
    const names = this.#inputNames;
    let at = BODY;
    let fed = 0;
    for (let i = 0; i < names.length; i++) {
      const value = inputs[names[i]!];
      if (value === undefined || value === null) {
        if (this.#inputOptional[i]) continue;
        throw this.#missing(names[i]!, inputs);
      }
      meta[at] = i;
      at = Array.isArray(value)
        ? this.#encodeSequence(names[i]!, value, at + 1)
        : this.#encodeTensor(
            'input',
            names[i]!,
            value as Tensor,
            at + 1,
            this.#inputDTypes[i]!,
            this.#inputCodes[i]!,
          );
      fed++;
    }
    let provided = 0;
    for (const name in inputs) if (inputs[name] !== null) provided++;
    if (provided !== fed) this.#findUnknown(inputs);

    const { indices, given } = selection;
    for (let i = 0; i < indices.length; i++) {
      meta[at++] = indices[i]!;
      const tensor = given[i];
      meta[at++] = tensor ? 1 : 0;
      if (tensor) {
        const output = this.outputs[indices[i]!]!;
        at = this.#encodeTensor('output', output.name, tensor, at, output.dtype, 0);
      }
    }
    meta[META_INPUTS] = fed;
    meta[META_OUTPUTS] = indices.length;
    meta[META_FLAGS] = this.#argCount > MAX_ARGS ? FLAG_PACKED : 0;
  }

  /** Calls a native function with the data written by encode(). */
  call(target: (...data: unknown[]) => unknown): unknown {
    const args = this.#args;
    // Spreading costs, so the usual counts do without.
    switch (this.#argCount) {
      case 1:
        return target(args[0]);
      case 2:
        return target(args[0], args[1]);
      case 3:
        return target(args[0], args[1], args[2]);
      default: {
        const data = this.data();
        return data.length > MAX_ARGS ? target(data) : target(...data);
      }
    }
  }

  /** The data written by encode(), in an array of its own. */
  data(): unknown[] {
    return this.#args.slice(0, this.#argCount);
  }

  #encodeTensor(
    role: string,
    name: string,
    tensor: Tensor,
    at: number,
    dtype: DType,
    code: number,
  ): number {
    const shape: unknown = tensor.shape;
    let data: unknown = tensor.data;
    if (tensor.dtype !== dtype || code === 0) {
      const known = dtypeCodes[tensor.dtype];
      if (known === undefined) {
        throw new InvalidInputError(
          `${role} "${name}": a tensor needs dtype, shape and data; got dtype ${JSON.stringify(tensor.dtype)}`,
        );
      }
      code = known;
    }
    if (!Array.isArray(shape)) {
      throw new InvalidInputError(`${role} "${name}": shape must be an array of numbers`);
    }
    const rank = shape.length;
    if (rank > MAX_RANK) {
      throw new InvalidInputError(
        `${role} "${name}": ${rank} dimensions are more than ${MAX_RANK}`,
      );
    }
    if (code === STRING_CODE) {
      data = copyStrings(role, name, data);
    } else if (ArrayBuffer.isView(data)) {
      if (code === FLOAT16_CODE && Float16 && data instanceof Float16) {
        data = new Uint16Array(data.buffer, data.byteOffset, data.length);
      }
    } else if (data instanceof ArraySpan) {
      meta[at] = code + JSON_TEXT;
      meta[at + 1] = rank;
      meta[at + 2 + rank] = data.begin;
      meta[at + 3 + rank] = data.end;
      for (let i = 0; i < rank; i++) meta[at + 2 + i] = shape[i] as number;
      this.#args[this.#argCount++] = data.text;
      return at + 4 + rank;
    }
    meta[at++] = code;
    meta[at++] = rank;
    for (let i = 0; i < rank; i++) meta[at++] = shape[i] as number;
    this.#args[this.#argCount++] = data;
    return at;
  }

  #encodeSequence(name: string, tensors: readonly Value[], at: number): number {
    const flat: unknown[] = [];
    tensors.forEach((tensor, i) => {
      const { dtype, shape, data } = (tensor ?? {}) as Tensor;
      const code = dtypeCodes[dtype];
      if (code === undefined || !Array.isArray(shape)) {
        throw new InvalidInputError(`input "${name}"[${i}]: a sequence holds tensors`);
      }
      flat.push(
        code,
        [...(shape as number[])],
        code === STRING_CODE ? copyStrings('input', name, data) : data,
      );
    });
    meta[at] = SEQUENCE;
    meta[at + 1] = 0;
    this.#args[this.#argCount++] = flat;
    return at + 2;
  }

  /** Reads a response: what the call returned, with the shapes in meta. Lets go of the request's data. */
  decode(result: unknown, selection: Selection): Record<string, Tensor> {
    for (let i = 0; i < this.#argCount; i++) this.#args[i] = undefined;
    this.#argCount = 0;
    const { indices, given } = selection;
    const values: Record<string, Value> = {};
    let at = BODY;
    for (let i = 0; i < indices.length; i++) {
      const name = this.#outputNames[indices[i]!]!;
      const own = given[i];
      if (own) {
        values[name] = own;
        continue;
      }
      let data = indices.length === 1 ? result : (result as unknown[])[i];
      const code = meta[at]!;
      const inScratch = meta[at + 1]! === 1;
      const rank = meta[at + 2]!;
      at += 3;
      if (code === 0) {
        values[name] = null;
      } else if (code === NESTED) {
        values[name] = decodeNested(data as Nested);
      } else {
        // Literals of the usual ranks: a pushed array grows twice.
        const shape =
          rank === 2 ? [meta[at]!, meta[at + 1]!] : rank === 1 ? [meta[at]!] : dimensions(at, rank);
        at += rank;
        let count = 1;
        for (const dim of shape) count *= dim;
        if (inScratch) data = fromScratch(i, code, count);
        values[name] = makeTensor(code, shape, data);
      }
    }
    return values as Record<string, Tensor>;
  }

  #missing(name: string, inputs: Readonly<Record<string, Value>>): InvalidInputError {
    this.#findUnknown(inputs);
    return missingInput(name, this.#inputNames);
  }

  #findUnknown(inputs: Readonly<Record<string, Value>>): void {
    for (const name of Object.keys(inputs)) {
      if (!this.#inputNames.includes(name)) throw unknownName('input', name, this.#inputNames);
    }
  }
}

/** A plain array of strings that no getter hides in: native code reads it while it must not be re-entered. */
function copyStrings(role: string, name: string, data: unknown): string[] {
  if (!Array.isArray(data)) {
    throw new InvalidInputError(`${role} "${name}": string data must be an array of strings`);
  }
  // Not map(): a subclass decides what that makes.
  const strings: string[] = [];
  for (let i = 0; i < data.length; i++) {
    const text: unknown = data[i];
    if (typeof text !== 'string') {
      throw new InvalidInputError(
        `${role} "${name}": string data must hold strings only; element ${i} is a ${typeof text}`,
      );
    }
    strings.push(text);
  }
  return strings;
}

function makeTensor(code: number, shape: number[], data: unknown): Tensor {
  const dtype = dtypeFromCode(code)!;
  if (code === FLOAT16_CODE && Float16) {
    const bits = data as Uint16Array;
    return { dtype, shape, data: new Float16(bits.buffer, bits.byteOffset, bits.length) };
  }
  return { dtype, shape, data: data as DataByDType[DType] };
}

function dimensions(at: number, rank: number): number[] {
  const shape: number[] = [];
  for (let i = 0; i < rank; i++) shape.push(meta[at + i]!);
  return shape;
}

interface Nested {
  dtype?: number;
  shape?: number[];
  data?: unknown;
  sequence?: Nested[];
  map?: Nested[];
}

function decodeNested(nested: Nested): Value {
  if (nested.sequence) return nested.sequence.map(decodeNested);
  if (nested.map) {
    const [keys, values] = nested.map as [Nested, Nested];
    const items = values.sequence?.map(decodeNested) ?? [...(values.data as Iterable<unknown>)];
    return new Map([...(keys.data as Iterable<string | bigint>)].map((key, i) => [key, items[i]]));
  }
  return makeTensor(nested.dtype!, nested.shape!, nested.data);
}

/** A tensor over memory that native code owns. */
export function tensorOver(code: number, shape: readonly number[], buffer: ArrayBuffer): Tensor {
  const dtype = dtypeFromCode(code)!;
  return { dtype, shape, data: viewOf(dtype as Exclude<DType, 'string'>, buffer) };
}
