// Writes and reads ONNX files, for the generator, the benches and the tests.
import { fileURLToPath } from 'node:url';
import protobuf from 'protobufjs';

const root = protobuf.loadSync(fileURLToPath(new URL('./onnx.proto', import.meta.url)));
const ModelProto = root.lookupType('onnx.ModelProto');
const TensorProto = root.lookupType('onnx.TensorProto');

export const FLOAT = 1;
export const INT64 = 7;
export const STRING = 8;

type Attribute =
  | number
  | number[]
  | string
  | { float: number }
  | { strings: string[] }
  | { type: Type }
  | { graph: Graph };

export interface TensorFields {
  name?: string;
  dims: number[];
  dataType: number;
  rawData?: Uint8Array;
  stringData?: Uint8Array[];
  externalData?: { key: string; value: string }[];
  dataLocation?: number;
}

export type Type =
  | { tensor: number; shape?: (number | string)[] }
  | { sequence: Type }
  | { map: { key: number; value: Type } }
  | { optional: Type };

export interface Node {
  op: string;
  inputs: string[];
  outputs: string[];
  attributes?: Record<string, Attribute>;
  domain?: string;
}

export interface Graph {
  name: string;
  inputs: Record<string, Type>;
  outputs: Record<string, Type>;
  nodes: Node[];
  initializers?: TensorFields[];
  opset?: number;
  /** More operator sets by domain. */
  domains?: Record<string, number>;
}

function typeProto(type: Type): object {
  if ('tensor' in type) {
    const dim = type.shape?.map((d) => (typeof d === 'number' ? { dimValue: d } : { dimParam: d }));
    return { tensorType: { elemType: type.tensor, ...(dim && { shape: { dim } }) } };
  }
  if ('sequence' in type) return { sequenceType: { elemType: typeProto(type.sequence) } };
  if ('optional' in type) return { optionalType: { elemType: typeProto(type.optional) } };
  return { mapType: { keyType: type.map.key, valueType: typeProto(type.map.value) } };
}

function attributeProto(name: string, value: Attribute): object {
  if (typeof value === 'number') return { name, i: value, type: 2 };
  if (typeof value === 'string') return { name, s: Buffer.from(value), type: 3 };
  if (Array.isArray(value)) return { name, ints: value, type: 7 };
  if ('float' in value) return { name, f: value.float, type: 1 };
  if ('strings' in value)
    return { name, strings: value.strings.map((s) => Buffer.from(s)), type: 8 };
  if ('type' in value) return { name, tp: typeProto(value.type), type: 13 };
  return { name, g: graphProto(value.graph), type: 5 };
}

function graphProto(graph: Graph): object {
  const values = (record: Record<string, Type>): object[] =>
    Object.entries(record).map(([name, type]) => ({ name, type: typeProto(type) }));
  return {
    name: graph.name,
    input: values(graph.inputs),
    output: values(graph.outputs),
    initializer: graph.initializers ?? [],
    node: graph.nodes.map((node) => ({
      opType: node.op,
      input: node.inputs,
      output: node.outputs,
      domain: node.domain ?? '',
      attribute: Object.entries(node.attributes ?? {}).map(([n, v]) => attributeProto(n, v)),
    })),
  };
}

/** The bytes of a model file. */
export function encodeModel(graph: Graph): Uint8Array {
  return ModelProto.encode(
    ModelProto.fromObject({
      irVersion: 8,
      producerName: 'tercel',
      opsetImport: [
        { domain: '', version: graph.opset ?? 17 },
        ...Object.entries(graph.domains ?? {}).map(([domain, version]) => ({ domain, version })),
      ],
      graph: graphProto(graph),
    }),
  ).finish();
}

/** A tensor of floats. */
export function floats(name: string, dims: number[], data: Float32Array): TensorFields {
  return {
    name,
    dims,
    dataType: FLOAT,
    rawData: new Uint8Array(data.buffer, data.byteOffset, data.byteLength),
  };
}

/** A tensor of int64. */
export function int64s(name: string, dims: number[], values: number[]): TensorFields {
  const data = BigInt64Array.from(values, BigInt);
  return { name, dims, dataType: INT64, rawData: new Uint8Array(data.buffer) };
}

export interface DecodedTensor {
  dims: number[];
  dataType: number;
  floatData: number[];
  int32Data: number[];
  stringData: Uint8Array[];
  int64Data: (number | { toString(): string })[];
  doubleData: number[];
  uint64Data: (number | { toString(): string })[];
  rawData: Uint8Array;
}

/** A TensorProto file, as test data sets have them. */
export function decodeTensor(bytes: Uint8Array): DecodedTensor {
  const message = TensorProto.decode(bytes) as unknown as DecodedTensor;
  return { ...message, dims: (message.dims ?? []).map(Number), dataType: message.dataType };
}

/** Inputs of a model file that have no initializer, with their shapes (1 for what is dynamic). */
export function decodeInputs(
  bytes: Uint8Array,
): { name: string; elemType: number; shape: number[] }[] {
  const model = ModelProto.toObject(ModelProto.decode(bytes), { longs: Number }) as {
    graph: {
      input: {
        name: string;
        type: { tensorType: { elemType: number; shape: { dim?: { dimValue?: number }[] } } };
      }[];
      initializer?: { name: string }[];
    };
  };
  const initialized = new Set((model.graph.initializer ?? []).map((tensor) => tensor.name));
  return model.graph.input
    .filter((input) => !initialized.has(input.name))
    .map((input) => ({
      name: input.name,
      elemType: input.type.tensorType.elemType,
      shape: (input.type.tensorType.shape.dim ?? []).map((dim) => dim.dimValue ?? 1),
    }));
}
