// What does an asynchronous run cost, and whom does it hold up? tsx bench/async.ts
//
// The peer is onnxruntime-node's run() in the same process, in turns.
import ort from 'onnxruntime-node';
import { loadModel, type Model } from 'tercel';
import { fileURLToPath } from 'node:url';
import { Floor } from './floor.js';
import { benchCase, libraryPath } from './models.js';
import { median, percentile, print, ratios, show, type Bar } from './statistics.js';

const ROUNDS = 15;

function peerFeeds(inputs: ReturnType<typeof benchCase>['inputs']): Record<string, ort.Tensor> {
  return Object.fromEntries(
    Object.entries(inputs).map(([name, tensor]) => [
      name,
      new ort.Tensor(tensor.dtype as 'float32', tensor.data as Float32Array, [...tensor.shape]),
    ]),
  );
}

/** Microseconds of one run, one at a time. */
async function oneAtATime(run: () => Promise<unknown>, runs: number): Promise<number> {
  const start = process.hrtime.bigint();
  for (let i = 0; i < runs; i++) await run();
  return Number(process.hrtime.bigint() - start) / runs / 1000;
}

/** Microseconds of one run with `width` in flight. */
async function inFlight(run: () => Promise<unknown>, runs: number, width: number): Promise<number> {
  let left = runs;
  const worker = async (): Promise<void> => {
    while (left-- > 0) await run();
  };
  const start = process.hrtime.bigint();
  await Promise.all(Array.from({ length: width }, worker));
  return Number(process.hrtime.bigint() - start) / runs / 1000;
}

/** How late a 1 ms timer ticks while `load` goes on, in milliseconds. */
async function lateness(load: () => Promise<unknown>, ms: number): Promise<number[]> {
  const late: number[] = [];
  let running = true;
  let due = performance.now() + 1;
  const tick = (): void => {
    if (!running) return;
    const now = performance.now();
    late.push(now - due);
    due = now + 1;
    setTimeout(tick, 1);
  };
  setTimeout(tick, 1);
  const end = performance.now() + ms;
  while (performance.now() < end) await load();
  running = false;
  return late;
}

async function idleCpu(ms: number): Promise<number> {
  const before = process.cpuUsage();
  await new Promise((resolve) => setTimeout(resolve, ms));
  const used = process.cpuUsage(before);
  return (used.user + used.system) / 1000 / ms;
}

export async function async(): Promise<Bar[]> {
  const bars: Bar[] = [];
  const add = (bar: Bar): void => {
    bars.push(bar);
    print(bar);
  };

  for (const name of ['tiny', 'mlp']) {
    const { path, inputs } = benchCase(name);
    const model = await loadModel(path);
    const hopping = await loadModel(path, { inline: 'never', lanes: 1 });
    const session = await ort.InferenceSession.create(path, { intraOpNumThreads: 1 });
    const feeds = peerFeeds(inputs);
    const paths: Record<string, () => Promise<unknown>> = {
      ours: () => model.run(inputs),
      lane: () => hopping.run(inputs),
      peer: () => session.run(feeds),
    };
    const single: Record<string, number[]> = { ours: [], lane: [], peer: [] };
    const wide: Record<string, number[]> = { ours: [], lane: [], peer: [] };
    for (let round = -2; round < ROUNDS; round++) {
      for (const [label, run] of Object.entries(paths)) {
        const one = await oneAtATime(run, 3000);
        const many = await inFlight(run, 6000, 64);
        if (round < 0) continue;
        single[label]!.push(one);
        wide[label]!.push(many);
      }
    }
    console.log(
      `${name}, us a run one at a time: run() ${show(single['ours']!)}, by a lane ${show(single['lane']!)}, onnxruntime-node ${show(single['peer']!)}`,
    );
    console.log(
      `${name}, us a run 64 in flight:   run() ${show(wide['ours']!)}, by a lane ${show(wide['lane']!)}, onnxruntime-node ${show(wide['peer']!)}`,
    );
    if (name === 'tiny') {
      const one = ratios(single['ours']!, single['peer']!);
      add({
        name: 'tiny, one at a time, of its time',
        value: median(one),
        text: `${show(one)}x`,
        values: one,
        bar: 0.35,
        direction: 'at most',
      });
      const many = ratios(wide['peer']!, wide['ours']!);
      add({
        name: 'tiny, 64 in flight, of its throughput',
        value: median(many),
        text: `${show(many)}x`,
        values: many,
        bar: 4,
        direction: 'at least',
      });
      const lane: number[] = [];
      for (let i = 0; i < 20000; i++) {
        const start = process.hrtime.bigint();
        await hopping.run(inputs);
        lane.push(Number(process.hrtime.bigint() - start) / 1000);
      }
      add({
        name: 'tiny, inline off, lanes hot: p50 us',
        value: percentile(lane, 50),
        text: `${percentile(lane, 50).toFixed(2)} (p99 ${percentile(lane, 99).toFixed(1)})`,
        bar: 6,
        direction: 'at most',
      });
    }
    await Promise.all([model.close(), hopping.close(), session.release()]);
  }

  const { path, inputs } = benchCase('resnet');
  const model = await loadModel(path, { lanes: 1 });
  const session = await ort.InferenceSession.create(path, { intraOpNumThreads: 1 });
  const feeds = peerFeeds(inputs);
  // The control: the same work by another process, which cannot block this event loop.
  const floor = await Floor.start(libraryPath(), path, {
    dimensions: benchCase('resnet').dimensions,
  });
  const control = await lateness(() => floor.measure(1), 3000);
  floor.stop();
  const quiet = await lateness(() => new Promise((resolve) => setTimeout(resolve, 20)), 2000);
  const ours = await lateness(() => model.run(inputs), 3000);
  const theirs = await lateness(() => session.run(feeds), 3000);
  const again = await lateness(() => model.run(inputs), 3000);
  const both = [...ours, ...again];
  console.log(
    `1 ms timer, ms late at most: nothing running ${Math.max(...quiet).toFixed(1)}, the same runs by another process ${Math.max(...control).toFixed(1)}, onnxruntime-node ${Math.max(...theirs).toFixed(1)}`,
  );
  add({
    name: 'ResNet-like runs going on: 1 ms timer, ms late',
    value: Math.max(...both),
    text: `${Math.max(...both).toFixed(2)} (p99.9 ${percentile(both, 99.9).toFixed(2)})`,
    bar: 5,
    direction: 'at most',
  });
  await Promise.all([model.close(), session.release()]);

  const idle = await loadIdle();
  const cpu = await idleCpu(3000);
  add({
    name: 'idle process, CPU of a core',
    value: cpu,
    text: cpu.toFixed(4),
    bar: 0.005,
    direction: 'at most',
  });
  await idle.close();
  return bars;
}

/** A model whose lanes have just worked. */
async function loadIdle(): Promise<Model> {
  const { path, inputs } = benchCase('mlp');
  const model = await loadModel(path, { inline: 'never' });
  await inFlight(() => model.run(inputs), 2000, 16);
  await new Promise((resolve) => setTimeout(resolve, 100));
  return model;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await async();
