// The engine on a GPU, from Node: tsx bench/gpu/engine.ts [--stand-in] [--seconds S] [--models NAMES]
//
// Requests that differ, many in flight, in each way to run them: does each get its own result, also while
// other models come and go beside captured graphs? How many does the GPU answer a second, and does its
// memory come back? Figures are lines of JSON on stdout, what they mean on stderr; the exit status is 1
// where a bar was missed. With --stand-in the CPU's sessions take the GPU's place, and the fake of the
// CUDA runtime CUDA's, to see that the program itself works.
import { parseArgs } from 'node:util';
import {
  configure,
  createEngine,
  loadModel,
  stats,
  trim,
  type GpuOptions,
  type Tensor,
} from 'tercel';
import { benchCase } from '../models.js';
import { holds, percentile, type Bar } from '../statistics.js';
import { fakeCuda } from '../../test/support/process.js';

const known = ['mlp', 'resnet', 'minilm'];
const { values: options } = parseArgs({
  options: {
    'stand-in': { type: 'boolean', default: false },
    seconds: { type: 'string', default: '3' },
    models: { type: 'string', default: known.join() },
  },
});
const names = options.models.split(',');
const strange = names.find((name) => !known.includes(name));
if (strange !== undefined) {
  console.error(`no model "${strange}"; there are ${known.join(', ')}`);
  process.exit(2);
}
const standIn = options['stand-in'];
const milliseconds = 1000 * Number(options.seconds);
/** Requests with results of their own. */
const DIFFERENT = 64;
const MAX_BATCH = 32;
/** Of the largest number of a result; single precision over some tens of layers. */
const TOLERANCE = 1e-3;

if (standIn) configure({ arena: { pin: fakeCuda } });

type Inputs = Record<string, Tensor>;
interface Subject {
  name: string;
  path: string;
  output: string;
  requests: Inputs[];
  expected: Float32Array[];
}

let missed = false;

function say(section: string, fields: object, text: string): void {
  console.log(JSON.stringify({ section, ...fields }));
  console.error(`${section.padEnd(10)} ${text}`);
}

function check(section: string, name: string, value: number, bar: number): void {
  const what: Bar = { name, value, text: '', bar, direction: 'at most' };
  missed ||= !holds(what);
  say(
    section,
    { bar: name, value, limit: bar, holds: holds(what) },
    `${name}: ${value.toFixed(3)} (at most ${bar}): ${holds(what) ? 'holds' : 'MISSED'}`,
  );
}

/** The largest difference, of the largest number expected. */
function difference(a: Float32Array, b: Float32Array): number {
  if (a.length !== b.length) return Infinity;
  let most = 0;
  let size = 0;
  for (let i = 0; i < b.length; i++) {
    const by = Math.abs(a[i]! - b[i]!);
    if (Number.isNaN(by)) return Infinity;
    most = Math.max(most, by);
    size = Math.max(size, Math.abs(b[i]!));
  }
  return most / size;
}

/** The same shapes with other numbers for each request, and what the CPU makes of them. */
async function subject(name: string): Promise<Subject> {
  const { path, inputs } = benchCase(name);
  const requests = Array.from({ length: DIFFERENT }, (_, seed) => {
    const fill = (tensor: Tensor): Tensor => {
      const { shape, data } = tensor;
      const number = (i: number): number => ((i + 1) * (seed * 97 + 13)) % 1999;
      const all = Array.from({ length: data.length }, (_, i) => number(i));
      return tensor.dtype === 'int64'
        ? { dtype: 'int64', shape, data: BigInt64Array.from(all, BigInt) }
        : { dtype: 'float32', shape, data: Float32Array.from(all, (value) => value / 1999) };
    };
    const entries = Object.entries(inputs).map(([input, tensor]) => [
      input,
      input.endsWith('mask') ? tensor : fill(tensor),
    ]);
    return Object.fromEntries(entries) as Inputs;
  });
  await using model = await loadModel(path);
  const output = model.outputs[0]!.name;
  const expected = await Promise.all(
    requests.map(async (request) => (await model.run(request))[output]!.data as Float32Array),
  );
  for (let i = 1; i < DIFFERENT; i++) {
    // Else a result that went to the wrong request would not be seen.
    if (difference(expected[i]!, expected[i - 1]!) < 2 * TOLERANCE) {
      throw new Error(`${name}: requests ${i - 1} and ${i} have the same result`);
    }
  }
  return { name, path, output, requests, expected };
}

const ways: [string, GpuOptions][] = [
  ['copies by ONNX Runtime', { slots: 0 }],
  ['two slots', { slots: 2 }],
  ['three slots', { slots: 3 }],
  ['graphs, two slots', { slots: 2, graphs: true }],
  ['graphs, three slots', { slots: 3, graphs: true }],
];

function onGpu(gpu: GpuOptions, exact: boolean): object {
  if (standIn) return { gpu: { ...gpu, standIn: true } };
  return { providers: [{ name: 'cuda', options: exact ? { use_tf32: '0' } : {} }], gpu };
}

interface Answers {
  ms: number[];
  wrong: number;
  failed: number;
  seconds: number;
}

/** `clients` requests at a time until `going` says no; each result is compared if `tolerance` is given. */
async function load(
  infer: (request: Inputs) => Promise<Inputs>,
  { requests, expected, output }: Subject,
  clients: number,
  going: () => boolean,
  tolerance?: number,
): Promise<Answers> {
  const answers: Answers = { ms: [], wrong: 0, failed: 0, seconds: 0 };
  let next = 0;
  const begin = performance.now();
  const client = async (): Promise<void> => {
    while (going()) {
      const i = next++ % DIFFERENT;
      const start = performance.now();
      try {
        const result = (await infer(requests[i]!))[output]!.data as Float32Array;
        answers.ms.push(performance.now() - start);
        if (tolerance !== undefined && !(difference(result, expected[i]!) <= tolerance)) {
          answers.wrong++;
        }
      } catch (error) {
        if (answers.failed++ === 0) console.error(error);
      }
    }
  };
  await Promise.all(Array.from({ length: clients }, client));
  answers.seconds = (performance.now() - begin) / 1000;
  return answers;
}

/** For so long, but so many requests at least. */
function until(ms: number): () => boolean {
  const end = performance.now() + ms;
  let least = 2 * DIFFERENT;
  return () => least-- > 0 || performance.now() < end;
}

async function run(each: Subject): Promise<void> {
  for (const [way, gpu] of ways) {
    if (standIn && gpu.slots === 0) continue;
    for (const exact of [true, false]) {
      await using engine = createEngine();
      const batching = { maxBatch: MAX_BATCH };
      const { model } = await engine.load(each.name, each.path, {
        ...onGpu(gpu, exact),
        batching,
      });
      const infer = (request: Inputs): Promise<Inputs> => engine.infer(each.name, request);
      const name = `${each.name}, ${way}`;
      if (exact) {
        const { wrong, failed } = await load(infer, each, 64, until(milliseconds / 4), TOLERANCE);
        check('results', `${name}: wrong or failed`, wrong + failed, 0);
        continue;
      }
      let failures = 0;
      for (const clients of [1, 64]) {
        await load(infer, each, clients, until(milliseconds / 10));
        const before = model.stats();
        const { ms, failed, seconds } = await load(infer, each, clients, until(milliseconds));
        const after = model.stats();
        const rows = (after.rows - before.rows) / Math.max(1, after.executions - before.executions);
        const perSecond = ms.length / seconds;
        failures += failed;
        const [p50, p99] = [percentile(ms, 50), percentile(ms, 99)];
        say(
          'load',
          { model: each.name, way, clients, perSecond, p50Ms: p50, p99Ms: p99, rows, failed },
          `${name}, ${clients} at a time: ${perSecond.toFixed(0)}/s, p50 ${p50.toFixed(3)}, ` +
            `p99 ${p99.toFixed(3)} ms, ${rows.toFixed(1)} rows a run`,
        );
      }
      check('load', `${name}: failed`, failures, 0);
      if (gpu.slots === 3) {
        const device = stats().devices[0]!;
        say('device', device, JSON.stringify(device));
      }
    }
  }
}

/** Others load, run and leave while a model replays its graphs. */
async function beside(each: Subject, other: Subject): Promise<void> {
  await using engine = createEngine();
  const gpu = { slots: 2, graphs: true };
  await engine.load(each.name, each.path, { ...onGpu(gpu, true), batching: { maxBatch: 8 } });
  let going = true;
  const answers = load(
    (request) => engine.infer(each.name, request),
    each,
    16,
    () => going,
    TOLERANCE,
  );
  let wrong = 0;
  const cycles = 10;
  try {
    for (let i = 0; i < cycles; i++) {
      await using model = await loadModel(
        other.path,
        onGpu({ slots: 2, graphs: i % 2 === 0 }, true),
      );
      for (const [k, request] of other.requests.slice(0, 8).entries()) {
        const result = (await model.run(request))[other.output]!.data as Float32Array;
        if (!(difference(result, other.expected[k]!) <= TOLERANCE)) wrong++;
      }
    }
  } finally {
    going = false;
  }
  const { wrong: own, failed, ms } = await answers;
  say(
    'beside',
    { cycles, requests: ms.length },
    `${cycles} models came and went beside ${ms.length} requests`,
  );
  check('beside', 'wrong or failed while others load', own + failed, 0);
  check('beside', 'wrong of those that loaded', wrong, 0);
}

/** One binding's output is the next one's input, where it lies. */
async function chained(each: Subject): Promise<void> {
  await using model = await loadModel(each.path, onGpu({}, true));
  let wrong = 0;
  const shapes = Object.fromEntries(
    Object.entries(each.requests[0]!).map(([input, { shape }]) => [input, shape]),
  );
  using one = model.bind(shapes, { onDevice: [each.output] });
  for (const [i, request] of each.requests.entries()) {
    for (const [input, { data }] of Object.entries(request)) {
      (one.inputs[input]!.data as Float32Array).set(data as Float32Array);
    }
    if (i % 2) await one.run();
    else one.runSync();
    const { data } = await one.onDevice[each.output]!.read();
    if (!(difference(data as Float32Array, each.expected[i]!) <= TOLERANCE)) wrong++;
  }
  check('chained', `${each.name}: outputs read from the GPU, wrong`, wrong, 0);
}

const subjects: Subject[] = [];
for (const name of names) subjects.push(await subject(name));
const used = (): number => {
  trim();
  const bytes = stats().devices[0]?.usedBytes;
  if (bytes === undefined) throw new Error('the GPU does not say how much of its memory is in use');
  return bytes / 1e6;
};
// What the libraries take once and keep.
await (await loadModel(subjects[0]!.path, onGpu({}, true))).close();
for (const each of subjects) await chained(each);
// Each beside the one before it; the first beside the last.
for (const [i, each] of subjects.entries()) await beside(each, subjects.at(i - 1)!);
const before = used();
for (const each of subjects) await run(each);
check('memory', 'MB of the GPU in use that were not before', used() - before, 64);
process.exitCode = missed ? 1 : 0;
