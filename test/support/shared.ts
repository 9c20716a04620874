// The models and expected outputs that others made. They lie beside the project and are not copied.
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import type { DType, Tensor } from 'tercel';
import { decodeTensor } from '../../models/onnx.js';

export const sharedModels =
  process.env['TERCEL_TEST_MODELS'] ??
  fileURLToPath(new URL('../../../shared/models', import.meta.url));

/** False in a checkout that stands alone: then what needs them is skipped, and says so. */
export const hasSharedModels = existsSync(sharedModels);
if (!hasSharedModels) {
  console.warn(`no models at ${sharedModels}: set TERCEL_TEST_MODELS to run the conformance tests`);
}

const dtypes: Record<number, DType> = {
  1: 'float32',
  2: 'uint8',
  3: 'int8',
  4: 'uint16',
  5: 'int16',
  6: 'int32',
  7: 'int64',
  8: 'string',
  9: 'bool',
  10: 'float16',
  11: 'float64',
  12: 'uint32',
  13: 'uint64',
};

const views = {
  float32: Float32Array,
  float64: Float64Array,
  int64: BigInt64Array,
  uint64: BigUint64Array,
  int32: Int32Array,
  uint32: Uint32Array,
  int16: Int16Array,
  uint16: Uint16Array,
  float16: Uint16Array,
  int8: Int8Array,
  uint8: Uint8Array,
  bool: Uint8Array,
} as const;

/** A TensorProto file as a Tensor. */
export function readTensor(file: string): Tensor {
  const proto = decodeTensor(readFileSync(file));
  const dtype = dtypes[proto.dataType];
  if (!dtype) throw new Error(`${file}: data type ${proto.dataType}`);
  const shape = proto.dims;
  if (dtype === 'string') {
    return { dtype, shape, data: proto.stringData.map((s) => Buffer.from(s).toString('utf8')) };
  }
  const type = views[dtype as keyof typeof views];
  if (proto.rawData?.length) {
    const bytes = Uint8Array.from(proto.rawData);
    return { dtype, shape, data: new type(bytes.buffer) };
  }
  const big = (values: { toString(): string }[]): bigint[] =>
    values.map((v) => BigInt(v.toString()));
  const data =
    dtype === 'int64'
      ? BigInt64Array.from(big(proto.int64Data))
      : dtype === 'uint64'
        ? BigUint64Array.from(big(proto.uint64Data))
        : dtype === 'float32'
          ? Float32Array.from(proto.floatData)
          : dtype === 'float64'
            ? Float64Array.from(proto.doubleData)
            : (type as typeof Int32Array).from(proto.int32Data);
  return { dtype, shape, data: data };
}

export interface ConformanceCase {
  name: string;
  model: string;
  /** In the model's order. */
  inputs: Tensor[];
  outputs: Tensor[];
}

/** Cases with a data set of their own: onnx-simple and onnx-pytorch-operator. */
export function dataSetCases(folder: string): ConformanceCase[] {
  const root = path.join(sharedModels, folder);
  return readdirSync(root).map((name) => {
    const data = path.join(root, name, 'test_data_set_0');
    const files = (kind: string): Tensor[] =>
      readdirSync(data)
        .filter((file) => file.startsWith(kind))
        .sort((a, b) => parseInt(a.slice(kind.length + 1)) - parseInt(b.slice(kind.length + 1)))
        .map((file) => readTensor(path.join(data, file)));
    return {
      name,
      model: path.join(root, name, 'model.onnx'),
      inputs: files('input'),
      outputs: files('output'),
    };
  });
}

/** onnx-light: well-known networks with constant weights, and one expected output. */
export function lightCases(): { name: string; model: string; output: Tensor }[] {
  const root = path.join(sharedModels, 'onnx-light');
  return readdirSync(root)
    .filter((file) => file.endsWith('.onnx'))
    .map((file) => ({ name: file, model: path.join(root, file) }))
    .map((entry) => ({ ...entry, output: entry.model.replace('.onnx', '_output_0.pb') }))
    .map(({ name, model, output }) => ({
      name,
      model,
      output: existsSync(output) ? readTensor(output) : (undefined as unknown as Tensor),
    }));
}

/** ONNX's own tolerance: rtol 1e-3, atol 1e-7; exact for what is no float. Names the first difference. */
export function difference(got: Tensor, expected: Tensor): string | undefined {
  if (got.dtype !== expected.dtype) return `dtype ${got.dtype}, expected ${expected.dtype}`;
  if (got.shape.join() !== expected.shape.join()) {
    return `shape [${got.shape.join()}], expected [${expected.shape.join()}]`;
  }
  const a = got.data as ArrayLike<number>;
  const b = expected.data as ArrayLike<number>;
  if (a.length !== b.length) return `${a.length} elements, expected ${b.length}`;
  const float = got.dtype.includes('float');
  for (let i = 0; i < a.length; i++) {
    const [x, y] = [a[i]!, b[i]!];
    const same =
      Object.is(x, y) || x === y || (float && Math.abs(x - y) <= 1e-7 + 1e-3 * Math.abs(y));
    if (!same) return `element ${i} is ${x}, expected ${y}`;
  }
  return undefined;
}
