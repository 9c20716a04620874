// Writes the models that the benches and tests run, with seeded random weights, to models/bench/
// (not committed): tsx models/generate.ts [--force]
import { existsSync, mkdirSync, renameSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import {
  encodeModel,
  FLOAT,
  floats,
  INT64,
  int64s,
  type Graph,
  type Node,
  type TensorFields,
} from './onnx.js';

export const benchFolder = fileURLToPath(new URL('./bench/', import.meta.url));

/** Path of a generated model. */
export function benchModel(name: string): string {
  return path.join(benchFolder, name, '1', 'model.onnx');
}

/** Numbers in (-1, 1) from a seed (mulberry32, public domain). */
function random(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t = (t + Math.imul(t ^ (t >>> 7), t | 61)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2147483648 - 1;
  };
}

class Builder {
  readonly nodes: Node[] = [];
  readonly initializers: TensorFields[] = [];
  readonly #random: () => number;
  #count = 0;

  constructor(seed: number) {
    this.#random = random(seed);
  }

  /** Random weights of a scale that keeps activations near 1. */
  weights(dims: number[], fanIn: number): string {
    const name = `w${this.#count++}`;
    const scale = Math.sqrt(3 / fanIn);
    const data = new Float32Array(dims.reduce((a, b) => a * b, 1));
    for (let i = 0; i < data.length; i++) data[i] = this.#random() * scale;
    this.initializers.push(floats(name, dims, data));
    return name;
  }

  constant(dims: number[], value: number): string {
    const name = `c${this.#count++}`;
    const count = dims.reduce((a, b) => a * b, 1);
    this.initializers.push(floats(name, dims, new Float32Array(count).fill(value)));
    return name;
  }

  ints(values: number[]): string {
    const name = `i${this.#count++}`;
    this.initializers.push(int64s(name, [values.length], values));
    return name;
  }

  add(op: string, inputs: string[], attributes: Node['attributes'] = {}, output?: string): string {
    const name = output ?? `t${this.#count++}`;
    this.nodes.push({ op, inputs, outputs: [name], attributes });
    return name;
  }
}

function tiny(): Graph {
  const b = new Builder(1);
  b.add('Add', ['x', b.weights([4], 1)], {}, 'y');
  return {
    name: 'tiny',
    inputs: { x: { tensor: FLOAT, shape: ['batch', 4] } },
    outputs: { y: { tensor: FLOAT, shape: ['batch', 4] } },
    ...b,
  };
}

function mlp(): Graph {
  const b = new Builder(2);
  const sizes = [784, 256, 128, 10];
  let x = 'x';
  for (let i = 0; i < 3; i++) {
    const [from, to] = [sizes[i]!, sizes[i + 1]!];
    x = b.add(
      'Gemm',
      [x, b.weights([from, to], from), b.weights([to], from)],
      {},
      i === 2 ? 'y' : undefined,
    );
    if (i < 2) x = b.add('Relu', [x]);
  }
  return {
    name: 'mlp',
    inputs: { x: { tensor: FLOAT, shape: ['batch', 784] } },
    outputs: { y: { tensor: FLOAT, shape: ['batch', 10] } },
    ...b,
  };
}

/** ResNet-18 (He et al., 2015) with batch normalisation folded into the convolutions. */
function resnet(): Graph {
  const b = new Builder(3);
  const conv = (x: string, from: number, to: number, kernel: number, stride: number): string => {
    const pad = (kernel - 1) / 2;
    const fanIn = from * kernel * kernel;
    return b.add(
      'Conv',
      [x, b.weights([to, from, kernel, kernel], fanIn), b.weights([to], fanIn)],
      {
        kernel_shape: [kernel, kernel],
        strides: [stride, stride],
        pads: [pad, pad, pad, pad],
      },
    );
  };
  let x = b.add('Relu', [conv('image', 3, 64, 7, 2)]);
  x = b.add('MaxPool', [x], { kernel_shape: [3, 3], strides: [2, 2], pads: [1, 1, 1, 1] });
  let from = 64;
  for (const to of [64, 128, 256, 512]) {
    for (let block = 0; block < 2; block++) {
      const stride = block === 0 && to !== 64 ? 2 : 1;
      const shortcut = stride === 1 && from === to ? x : conv(x, from, to, 1, stride);
      const y = conv(b.add('Relu', [conv(x, from, to, 3, stride)]), to, to, 3, 1);
      x = b.add('Relu', [b.add('Add', [y, shortcut])]);
      from = to;
    }
  }
  x = b.add('Flatten', [b.add('GlobalAveragePool', [x])]);
  b.add('Gemm', [x, b.weights([512, 1000], 512), b.weights([1000], 512)], {}, 'scores');
  return {
    name: 'resnet',
    inputs: { image: { tensor: FLOAT, shape: ['batch', 3, 224, 224] } },
    outputs: { scores: { tensor: FLOAT, shape: ['batch', 1000] } },
    ...b,
  };
}

/** An encoder of MiniLM-L6's shape (Wang et al., 2020): 6 layers, 384 wide, 12 heads, mean pooling. */
function minilm(): Graph {
  const b = new Builder(4);
  const width = 384;
  const heads = 12;
  const dense = (x: string, from: number, to: number): string =>
    b.add('Add', [b.add('MatMul', [x, b.weights([from, to], from)]), b.weights([to], from)]);
  const norm = (x: string): string =>
    b.add('LayerNormalization', [x, b.constant([width], 1), b.constant([width], 0)], {
      axis: -1,
      epsilon: { float: 1e-12 },
    });
  const split = b.ints([0, 0, heads, width / heads]);
  const join = b.ints([0, 0, width]);
  // A vocabulary of 2,000 keeps the file small; a lookup costs the same.
  let x = norm(b.add('Gather', [b.weights([2000, width], 1), 'input_ids'], { axis: 0 }));
  const mask = b.add('Cast', ['attention_mask'], { to: FLOAT });
  const bias = b.add('Mul', [
    b.add('Sub', [b.add('Unsqueeze', [mask, b.ints([1, 2])]), b.constant([1], 1)]),
    b.constant([1], 10000),
  ]);
  for (let layer = 0; layer < 6; layer++) {
    const head = (perm: number[]): string =>
      b.add('Transpose', [b.add('Reshape', [dense(x, width, width), split])], { perm });
    const q = head([0, 2, 1, 3]);
    const k = head([0, 2, 3, 1]);
    const v = head([0, 2, 1, 3]);
    const scores = b.add('Div', [
      b.add('MatMul', [q, k]),
      b.constant([1], Math.sqrt(width / heads)),
    ]);
    const weights = b.add('Softmax', [b.add('Add', [scores, bias])], { axis: -1 });
    const context = b.add('Transpose', [b.add('MatMul', [weights, v])], { perm: [0, 2, 1, 3] });
    x = norm(b.add('Add', [x, dense(b.add('Reshape', [context, join]), width, width)]));
    const up = dense(x, width, 4 * width);
    // GELU by the error function, as exported models have it.
    const erf = b.add('Erf', [b.add('Div', [up, b.constant([1], Math.SQRT2)])]);
    const gelu = b.add('Mul', [
      b.add('Mul', [up, b.add('Add', [erf, b.constant([1], 1)])]),
      b.constant([1], 0.5),
    ]);
    x = norm(b.add('Add', [x, dense(gelu, 4 * width, width)]));
  }
  b.add('ReduceMean', [x], { axes: [1], keepdims: 0 }, 'embedding');
  return {
    name: 'minilm',
    inputs: {
      input_ids: { tensor: INT64, shape: ['batch', 'tokens'] },
      attention_mask: { tensor: INT64, shape: ['batch', 'tokens'] },
    },
    outputs: { embedding: { tensor: FLOAT, shape: ['batch', width] } },
    ...b,
  };
}

/** One matrix of 25 MB: what loading and closing leaves behind. */
function weights25(): Graph {
  const b = new Builder(5);
  b.add('MatMul', ['x', b.weights([2560, 2560], 2560)], {}, 'y');
  return {
    name: 'weights25',
    inputs: { x: { tensor: FLOAT, shape: ['batch', 2560] } },
    outputs: { y: { tensor: FLOAT, shape: ['batch', 2560] } },
    ...b,
  };
}

export const graphs = { tiny, mlp, resnet, minilm, weights25 };

/** Writes what is missing (or everything with `force`); the names of what was written. */
export function generate(force = false): string[] {
  const written: string[] = [];
  for (const [name, build] of Object.entries(graphs)) {
    const file = benchModel(name);
    if (!force && existsSync(file)) continue;
    mkdirSync(path.dirname(file), { recursive: true });
    // Whole or not at all, also when two processes generate.
    const draft = `${file}.${process.pid}`;
    writeFileSync(draft, encodeModel(build()));
    renameSync(draft, file);
    written.push(name);
  }
  return written;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const written = generate(process.argv.includes('--force'));
  console.log(
    written.length ? `wrote ${written.join(', ')} to models/bench/` : 'models/bench/ is complete',
  );
}
