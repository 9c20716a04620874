// The benchmark models with inputs that fit them.
import { readdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import type { Tensor } from '../src/index.js';
import { benchModel, generate } from '../models/generate.js';

generate();

export interface Case {
  name: string;
  path: string;
  dimensions: Record<string, number>;
  inputs: Record<string, Tensor>;
  outputs: Record<string, Tensor>;
}

const float = (...shape: number[]): Tensor<'float32'> => ({
  dtype: 'float32',
  shape,
  data: new Float32Array(shape.reduce((a, b) => a * b, 1)).fill(0.5),
});
const ones = (...shape: number[]): Tensor<'int64'> => ({
  dtype: 'int64',
  shape,
  data: new BigInt64Array(shape.reduce((a, b) => a * b, 1)).fill(1n),
});

const tokens = 64;

const shapes: Record<string, () => Pick<Case, 'inputs' | 'outputs'>> = {
  tiny: () => ({ inputs: { x: float(1, 4) }, outputs: { y: float(1, 4) } }),
  mlp: () => ({ inputs: { x: float(1, 784) }, outputs: { y: float(1, 10) } }),
  resnet: () => ({ inputs: { image: float(1, 3, 224, 224) }, outputs: { scores: float(1, 1000) } }),
  weights25: () => ({ inputs: { x: float(1, 2560) }, outputs: { y: float(1, 2560) } }),
  minilm: () => ({
    inputs: { input_ids: ones(1, tokens), attention_mask: ones(1, tokens) },
    outputs: { embedding: float(1, 384) },
  }),
};

export function benchCase(name: string): Case {
  return { name, path: benchModel(name), dimensions: { batch: 1, tokens }, ...shapes[name]!() };
}

/** Path of the libonnxruntime that both sides use. */
export function libraryPath(): string {
  const root = path.dirname(
    createRequire(import.meta.url).resolve('onnxruntime-node/package.json'),
  );
  const folder = path.join(root, 'bin', 'napi-v6', process.platform, process.arch);
  return path.join(
    folder,
    readdirSync(folder).find((name) => name.startsWith('libonnxruntime.'))!,
  );
}
