// Is compute lost on the way? tsx bench/throughput.ts
//
// Runs a second of large models through run(), against the C loop with the same threads, in turns.
import { fileURLToPath } from 'node:url';
import { loadModel } from 'tercel';
import { Floor } from './floor.js';
import { benchCase, libraryPath } from './models.js';
import { median, print, ratios, show, type Bar } from './statistics.js';

const ROUNDS = 12;
const RUNS = 8;

export async function throughput(): Promise<Bar[]> {
  const bars: Bar[] = [];
  for (const name of ['resnet', 'minilm']) {
    const { path, inputs, dimensions } = benchCase(name);
    const threads = 1;
    const floor = await Floor.start(libraryPath(), path, { dimensions, threads });
    const model = await loadModel(path, { threads, lanes: 1 });
    const floorMs: number[] = [];
    const ourMs: number[] = [];
    for (let round = -1; round < ROUNDS; round++) {
      const f = (await floor.measure(RUNS)) / 1e6;
      const start = performance.now();
      // Two in flight, so that the lane never waits for JS.
      let left = RUNS;
      const worker = async (): Promise<void> => {
        while (left-- > 0) await model.run(inputs);
      };
      await Promise.all([worker(), worker()]);
      const ours = (performance.now() - start) / RUNS;
      if (round < 0) continue;
      floorMs.push(f);
      ourMs.push(ours);
    }
    floor.stop();
    await model.close();
    console.log(`${name}: C loop ${show(floorMs)} ms, run() ${show(ourMs)} ms`);
    const ratio = ratios(floorMs, ourMs);
    const bar: Bar = {
      name: `${name}: run(), of the C loop's throughput`,
      value: median(ratio),
      text: show(ratio, 3),
      values: ratio,
      bar: 0.97,
      direction: 'at least',
    };
    bars.push(bar);
    print(bar);
  }
  return bars;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await throughput();
