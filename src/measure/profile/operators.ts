// ONNX Runtime's profile, read: what each operator took, moved and computed.
import { readFileSync } from 'node:fs';
import { InvalidInputError } from '../../errors.js';

/** An event of the profile, in the Trace Event format. */
export interface TraceEvent {
  cat: string;
  name: string;
  ts: number;
  dur: number;
  tid: number;
  args?: Record<string, unknown>;
}

/** One node of the graph, over all measured runs. */
export interface OperatorTime {
  name: string;
  operator: string;
  provider: string;
  /** Microseconds of a run, in the mean. */
  us: number;
  /** Of all operators together. */
  share: number;
  /** Bytes read and written in a run, as the library counts them: inputs, weights, outputs. */
  bytes: number;
  /** Floating-point operations of a run; null where the operator is not one whose are known. */
  flops: number | null;
  outputShape: string;
}

export interface OperatorProfile {
  runs: number;
  /** Microseconds of a run in the mean: all of it, and what the operators took together. */
  runUs: number;
  operatorsUs: number;
  operators: OperatorTime[];
  /** Each run's operators by their times, for relating allocations to them: from and to, microseconds. */
  spans: { name: string; operator: string; from: number; to: number; run: number }[];
  /** From and to of each run, microseconds since the profile began. */
  runSpans: { from: number; to: number }[];
}

function shapes(value: unknown): number[][] {
  if (!Array.isArray(value)) return [];
  return value.map((typed) => {
    const [shape] = Object.values((typed ?? {}) as Record<string, unknown>);
    return Array.isArray(shape) ? shape.map(Number) : [];
  });
}

const textOf = (value: unknown): string =>
  typeof value === 'string' || typeof value === 'number' ? String(value) : '';

const product = (dims: readonly number[]): number => dims.reduce((a, b) => a * b, 1);

/** Operators that do one thing, or about one, with each element. */
const ELEMENTWISE =
  /^(Relu|Add|Mul|Sub|Div|Sigmoid|Tanh|Clip|Sqrt|Pow|Erf|Gelu|FastGelu|BiasGelu|QuickGelu|HardSwish|HardSigmoid|LeakyRelu|Softmax|LayerNormalization|SkipLayerNormalization|BatchNormalization|Cast|Neg|Exp|Log|Where)$/;

/**
 * Floating-point operations of a node, a multiply-add counting as two: those of convolutions and matrix
 * products from their shapes, of what works element by element one for each.
 */
export function flopsOf(operator: string, inputs: number[][], outputs: number[][]): number | null {
  const [a = [], b = []] = inputs;
  const out = outputs[0] ?? [];
  if (/^(Nhwc)?(Fused)?Conv$/.test(operator)) return 2 * product(out) * product(b.slice(1));
  if (operator === 'ConvTranspose') return 2 * product(a) * product(b.slice(1));
  if (/^(Fused)?(Gemm|MatMul)$|^MatMulInteger$|^FusedGemm$/.test(operator)) {
    if (b.length < 2) return null;
    // Either way round, a weight of k times n has product(b) elements of which n are in the output.
    const n = out.at(-1) ?? 1;
    const k = product(b.slice(-2)) / n;
    return 2 * product(out) * k;
  }
  if (/Pool$/.test(operator)) return product(a);
  if (ELEMENTWISE.test(operator)) return product(out);
  return null;
}

interface Node {
  name: string;
  operator: string;
  provider: string;
  us: number;
  bytes: number;
  flops: number | null;
  outputShape: string;
}

/**
 * Reads a profile.
 *
 * @param skip runs at the beginning that do not count
 * @throws InvalidInputError for a file that is none
 */
export function readOperators(
  file: string,
  skip: number,
): { profile: OperatorProfile; events: TraceEvent[] } {
  let events: TraceEvent[];
  try {
    events = JSON.parse(readFileSync(file, 'utf8')) as TraceEvent[];
  } catch (cause) {
    throw new InvalidInputError(`cannot read the profile ${file}: ${(cause as Error).message}`, {
      cause,
    });
  }
  const all = events
    .filter(({ cat, name }) => cat === 'Session' && name === 'model_run')
    .sort((x, y) => x.ts - y.ts);
  const runs = all.slice(skip);
  if (runs.length === 0) throw new InvalidInputError(`the profile ${file} has no runs`);
  const nodes = new Map<string, Node>();
  const spans: OperatorProfile['spans'] = [];
  const kernels = events
    .filter(({ cat, name }) => cat === 'Node' && name.endsWith('_kernel_time'))
    .sort((x, y) => x.ts - y.ts);
  // If, Loop and Scan hold their nodes: what these take is theirs.
  const own = new Map(kernels.map((kernel) => [kernel, kernel.dur]));
  const around: TraceEvent[] = [];
  for (const kernel of kernels) {
    while (around.length > 0 && around.at(-1)!.ts + around.at(-1)!.dur <= kernel.ts) around.pop();
    const outer = around.at(-1);
    const isInside =
      outer && outer.tid === kernel.tid && kernel.ts + kernel.dur <= outer.ts + outer.dur;
    if (isInside) own.set(outer, Math.max(0, own.get(outer)! - kernel.dur));
    if (/^(If|Loop|Scan)$/.test(textOf(kernel.args?.['op_name']))) around.push(kernel);
  }
  let at = 0;
  for (const kernel of kernels) {
    while (at < all.length && all[at]!.ts + all[at]!.dur < kernel.ts) at++;
    const run = all[at];
    if (!run || kernel.ts < run.ts) continue;
    const args = kernel.args ?? {};
    const name = kernel.name.slice(0, -'_kernel_time'.length);
    const operator = textOf(args['op_name']);
    spans.push({ name, operator, from: kernel.ts, to: kernel.ts + kernel.dur, run: at });
    if (at < skip) continue;
    const key = `${textOf(args['node_index'])} ${name}`;
    const outputs = shapes(args['output_type_shape']);
    const size = (field: string): number => Number(args[field] ?? 0);
    let node = nodes.get(key);
    if (!node) {
      node = {
        name,
        operator,
        provider: textOf(args['provider']).replace('ExecutionProvider', ''),
        us: 0,
        bytes: size('output_size') + size('parameter_size') + size('activation_size'),
        flops: flopsOf(operator, shapes(args['input_type_shape']), outputs),
        outputShape: outputs.map((shape) => `[${shape.join(',')}]`).join(' '),
      };
      nodes.set(key, node);
    }
    node.us += own.get(kernel)!;
  }
  const runUs = runs.reduce((sum, { dur }) => sum + dur, 0) / runs.length;
  const operatorsUs = [...nodes.values()].reduce((sum, { us }) => sum + us, 0) / runs.length;
  const operators = [...nodes.values()].map((node) => {
    const us = node.us / runs.length;
    return { ...node, us, share: us / operatorsUs };
  });
  return {
    events,
    profile: {
      runs: runs.length,
      runUs,
      operatorsUs,
      operators,
      spans,
      runSpans: all.map(({ ts, dur }) => ({ from: ts, to: ts + dur })),
    },
  };
}
