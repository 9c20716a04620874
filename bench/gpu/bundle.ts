// What a machine with a GPU and without Node needs to prove what Tercel does there: cases with expected
// outputs, in files that native/bench/gpu.cc reads. They go to build/gpu/bundle: tsx bench/gpu/bundle.ts
//
// The bundle is small, to be carried: weights are numbers that the graph computes when it is loaded, and
// the benchmarks' inputs are named patterns. Expected outputs are the CPU's, but for the cases of others.
// With --stand-in the program is run on it, short, with the CPU and a fake of CUDA in the GPU's place.
import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { loadModel, type Tensor } from 'tercel';
import { graphs } from '../../models/generate.js';
import {
  decodeInputs,
  encodeModel,
  FLOAT,
  int64s,
  type Graph,
  type Node,
  type TensorFields,
} from '../../models/onnx.js';
import { dtypeCodes } from '../../src/tensor.js';
import { libraryPath } from '../models.js';
import { dataSetCases, hasSharedModels, lightCases } from '../../test/support/shared.js';

const bundle = fileURLToPath(new URL('../../build/gpu/bundle', import.meta.url));
/** Patterns that the program makes by itself, by name. */
const patterns = {
  ramp: (i: number) => (i % 251) / 251,
  ids: (i: number) => i % 1999,
  ones: () => 1,
} as const;
type Pattern = keyof typeof patterns;

const count = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);

function bytesOf(tensor: Tensor): Uint8Array {
  const data = tensor.data as Float32Array;
  return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
}

/** One case's folder. An input's data is a tensor's, or a pattern's. */
function write(
  folder: string,
  model: string | Uint8Array,
  inputs: [string, Tensor, Pattern?][],
  outputs: [string, Tensor][],
  flops = 0,
): void {
  mkdirSync(folder, { recursive: true });
  if (typeof model === 'string') copyFileSync(model, path.join(folder, 'model.onnx'));
  else writeFileSync(path.join(folder, 'model.onnx'), model);
  const lines: string[] = [];
  const line = (role: string, name: string, tensor: Tensor, file: string, made = false): void => {
    lines.push(
      [role, name, dtypeCodes[tensor.dtype], tensor.shape.length, ...tensor.shape, file].join(' '),
    );
    if (!made) writeFileSync(path.join(folder, file), bytesOf(tensor));
  };
  inputs.forEach(([name, tensor, pattern], i) =>
    line('input', name, tensor, pattern ? `pattern:${pattern}` : `in${i}.bin`, Boolean(pattern)),
  );
  outputs.forEach(([name, tensor], i) => line('output', name, tensor, `out${i}.bin`));
  if (flops > 0) lines.push(`flops ${flops}`);
  writeFileSync(path.join(folder, 'case.txt'), lines.join('\n') + '\n');
}

function made(pattern: Pattern, dtype: 'float32' | 'int64', shape: number[]): Tensor {
  const values = Array.from({ length: count(shape) }, (_, i) => patterns[pattern](i));
  return dtype === 'float32'
    ? { dtype, shape, data: Float32Array.from(values) }
    : { dtype, shape, data: BigInt64Array.from(values, BigInt) };
}

/** The graph with its large weights computed: sin(0.618 (i mod 1009)), as large as they were. */
function withComputedWeights(graph: Graph): Graph {
  const nodes: Node[] = [];
  const initializers: TensorFields[] = [];
  const scalar = (name: string, value: number): string => {
    const data = new Uint8Array(Float32Array.of(value).buffer);
    initializers.push({ name, dims: [], dataType: FLOAT, rawData: data });
    return name;
  };
  const whole = (name: string, value: number): string => {
    const data = new Uint8Array(BigInt64Array.of(BigInt(value)).buffer);
    initializers.push({ name, dims: [], dataType: 7, rawData: data });
    return name;
  };
  const zero = whole('weights.zero', 0);
  const one = whole('weights.one', 1);
  const period = whole('weights.period', 1009);
  const step = scalar('weights.step', 0.618);
  for (const tensor of graph.initializers ?? []) {
    const name = tensor.name!;
    if (tensor.dataType !== FLOAT || count(tensor.dims) < 4096) {
      initializers.push(tensor);
      continue;
    }
    const bytes = tensor.rawData!.slice();
    const data = new Float32Array(bytes.buffer);
    const rms = Math.sqrt(data.reduce((sum, value) => sum + value * value, 0) / data.length);
    const add = (op: string, inputs: string[], attributes: Node['attributes'] = {}): string => {
      const output = `${name}.${op}${nodes.length}`;
      nodes.push({ op, inputs, outputs: [output], attributes });
      return output;
    };
    const index = add('Range', [zero, whole(`${name}.count`, data.length), one]);
    const phase = add('Cast', [add('Mod', [index, period])], { to: FLOAT });
    const wave = add('Sin', [add('Mul', [phase, step])]);
    const scaled = add('Mul', [wave, scalar(`${name}.scale`, rms * Math.SQRT2)]);
    initializers.push(int64s(`${name}.shape`, [tensor.dims.length], tensor.dims));
    nodes.push({ op: 'Reshape', inputs: [scaled, `${name}.shape`], outputs: [name] });
  }
  return { ...graph, nodes: [...nodes, ...graph.nodes], initializers };
}

/** Floating-point operations of the matrix products, a multiplication and an addition each. */
const flopsOfRow = {
  // He et al., 2015, table 1: 1.8e9 multiply-adds.
  resnet: 2 * 1.814e9,
  // 64 tokens through 6 layers of 4 projections, 2 of the feed-forward part, and the attention itself.
  minilm: 6 * 64 * 2 * (4 * 384 * 384 + 2 * 384 * 1536 + 2 * 64 * 384),
};

async function benchmarks(): Promise<void> {
  for (const rows of [1, 32]) {
    const inputs: Record<string, [string, Tensor, Pattern][]> = {
      resnet: [['image', made('ramp', 'float32', [rows, 3, 224, 224]), 'ramp']],
      minilm: [
        ['input_ids', made('ids', 'int64', [rows, 64]), 'ids'],
        ['attention_mask', made('ones', 'int64', [rows, 64]), 'ones'],
      ],
    };
    for (const [name, list] of Object.entries(inputs)) {
      const bytes = encodeModel(withComputedWeights(graphs[name as 'resnet']()));
      await using model = await loadModel(bytes);
      const feeds = Object.fromEntries(list.map(([input, tensor]) => [input, tensor]));
      const outputs = Object.entries(model.runSync(feeds));
      const flops = rows * flopsOfRow[name as 'resnet'];
      write(path.join(bundle, 'bench', `${name}-${rows}`), bytes, list, outputs, flops);
    }
  }
}

/** Graphs of one node, for what the machine does at best. Their outputs are not looked at. */
function roof(): void {
  const side = 4096;
  const square = { dtype: 'float32', shape: [side, side] } as const;
  const type = { tensor: FLOAT, shape: [side, side] };
  const tensor = (): Tensor => ({ ...square, data: new Float32Array(0) });
  const matmul: Graph = {
    name: 'matmul',
    inputs: { a: type, b: type },
    outputs: { y: type },
    nodes: [{ op: 'MatMul', inputs: ['a', 'b'], outputs: ['y'] }],
  };
  const add: Graph = {
    name: 'add',
    inputs: { a: type },
    outputs: { y: type },
    nodes: [{ op: 'Add', inputs: ['a', 'one'], outputs: ['y'] }],
    initializers: [
      {
        name: 'one',
        dims: [],
        dataType: FLOAT,
        rawData: new Uint8Array(Float32Array.of(1).buffer),
      },
    ],
  };
  for (const graph of [matmul, add]) {
    const folder = path.join(bundle, 'roof', graph.name);
    const inputs = Object.keys(graph.inputs).map(
      (name) => [name, tensor(), 'ramp'] as [string, Tensor, Pattern],
    );
    write(folder, encodeModel(graph), inputs, []);
    // What is not compared need not be carried.
    const list = path.join(folder, 'case.txt');
    const output = `output y ${dtypeCodes.float32} 2 ${side} ${side} pattern:ramp\n`;
    writeFileSync(list, readFileSync(list, 'utf8') + output);
  }
}

/** The models and expected outputs that others made, as far as this ONNX Runtime runs them. */
async function conformance(): Promise<number> {
  if (!hasSharedModels) return 0;
  let written = 0;
  const cases = ['onnx-simple', 'onnx-pytorch-operator'].flatMap(dataSetCases);
  for (const { name, model, output } of lightCases()) {
    const inputs = decodeInputs(readFileSync(model)).map(({ shape }): Tensor => {
      const n = count(shape);
      return {
        dtype: 'float32',
        shape,
        data: Float32Array.from({ length: n }, (_, i) => i / n),
      };
    });
    cases.push({ name: path.basename(name, '.onnx'), model, inputs, outputs: [output] });
  }
  for (const { name, model: file, inputs, outputs } of cases) {
    const isPlain = [...inputs, ...outputs].every(({ dtype }) => dtype !== 'string');
    const model = isPlain ? await loadModel(file).catch(() => undefined) : undefined;
    if (!model) continue;
    const isTensors = [...model.inputs, ...model.outputs].every(
      ({ kind, name: value }) => kind === 'tensor' && !/\s/.test(value) && value !== '',
    );
    if (isTensors && model.inputs.length === inputs.length) {
      write(
        path.join(bundle, 'cases', name),
        file,
        model.inputs.map((input, i) => [input.name, inputs[i]!]),
        outputs.map((tensor, i) => [model.outputs[i]!.name, tensor]),
      );
      written++;
    }
    await model.close();
  }
  return written;
}

rmSync(bundle, { recursive: true, force: true });
mkdirSync(bundle, { recursive: true });
await benchmarks();
roof();
const written = await conformance();
if (process.argv.includes('--stand-in')) {
  const built = fileURLToPath(new URL('../../build/tests', import.meta.url));
  const fake = path.join(built, 'fake-cuda', 'libcudart.so.12');
  const options = ['--stand-in', fake, '--cycles', '3', 'outputs', 'cycles'];
  execFileSync(path.join(built, 'tercel_gpu'), [libraryPath(), bundle, ...options], {
    stdio: ['ignore', 'ignore', 'inherit'],
  });
}
console.log(
  `wrote ${written} cases with expected outputs, and the benchmarks, to build/gpu/bundle`,
);
