// What is copied, and what does that cost? tsx bench/copies.ts
//
// One addition to 600 kB, so that moving the bytes is most of a run: from plain memory, which run() has to
// copy as JS could change it meanwhile, to results that own theirs; and from a lease to a lease, which are
// taken as they are. The peer is onnxruntime-node's run() in the same process, in turns.
import { fileURLToPath } from 'node:url';
import ort from 'onnxruntime-node';
import { allocate, loadModel, stats, type Tensor } from 'tercel';
import { benchCase } from './models.js';
import { median, print, ratios, show, type Bar } from './statistics.js';

const ROUNDS = 15;
const RUNS = 100;
const SHAPE = [37_632, 4];
const BYTES = SHAPE[0]! * SHAPE[1]! * 4;

export async function copies(): Promise<Bar[]> {
  const { path } = benchCase('tiny');
  const model = await loadModel(path, { inline: 'never', lanes: 1 });
  const theirs = await ort.InferenceSession.create(path, { intraOpNumThreads: 1 });
  const plain: Tensor = {
    dtype: 'float32',
    shape: SHAPE,
    data: new Float32Array(BYTES / 4).fill(1),
  };
  const lease = allocate('float32', SHAPE);
  lease.data.fill(1);
  const peer = new ort.Tensor('float32', plain.data as Float32Array, SHAPE);
  const outputs = { y: allocate('float32', SHAPE) };
  const ways: Record<string, () => Promise<unknown>> = {
    'lease to lease': () => model.run({ x: lease }, { outputs }),
    'plain memory': () => model.run({ x: plain }),
    'onnxruntime-node': () => theirs.run({ x: peer }),
  };
  const us: Record<string, number[]> = {};
  const copied: Record<string, number> = {};
  for (let round = -2; round < ROUNDS; round++) {
    for (const [name, run] of Object.entries(ways)) {
      const before = stats().copies;
      const start = performance.now();
      for (let i = 0; i < RUNS; i++) await run();
      const took = ((performance.now() - start) * 1000) / RUNS;
      const { bytesIn, bytesOut } = stats().copies;
      if (round < 0) continue;
      (us[name] ??= []).push(took);
      copied[name] = (bytesIn - before.bytesIn + bytesOut - before.bytesOut) / RUNS;
    }
  }
  await model.close();
  await theirs.release();
  for (const [name, list] of Object.entries(us))
    console.log(`600 kB, ${name}: ${show(list, 0)} us a run`);
  const against = ratios(us['lease to lease']!, us['onnxruntime-node']!);
  const bars: Bar[] = [
    {
      name: '600 kB, lease to lease: bytes copied a run',
      value: copied['lease to lease']!,
      text: String(copied['lease to lease']!),
      bar: 0,
      direction: 'at most',
    },
    {
      name: '600 kB, plain memory: bytes copied a run, of the tensor',
      value: copied['plain memory']! / BYTES,
      text: (copied['plain memory']! / BYTES).toFixed(2),
      bar: 2,
      direction: 'at most',
    },
    {
      name: "600 kB, lease to lease: run(), of the time of onnxruntime-node's",
      value: median(against),
      text: `${show(against)}x`,
      values: against,
      bar: 1,
      direction: 'at most',
    },
  ];
  bars.forEach(print);
  return bars;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await copies();
