// What does watching a model cost while it serves? tsx bench/watching.ts
//
// The same runs with the allocation log on and off, in turns: tiny, whose run allocates as often as it takes
// microseconds, is the worst case. Off, what is left is a load and a branch an allocation, which the bars of
// bench/overhead.ts hold down.
import { fileURLToPath } from 'node:url';
import { loadModel } from 'tercel';
// Of the build, as the model: an environment has one.
import { native } from '../dist/native.js';
import { benchCase } from './models.js';
import { median, print, ratios, show, type Bar } from './statistics.js';

const ROUNDS = 15;

export async function watching(): Promise<Bar[]> {
  const bars: Bar[] = [];
  for (const [name, runs] of [
    ['tiny', 100_000],
    ['mlp', 20_000],
  ] as const) {
    const { path, inputs } = benchCase(name);
    const model = await loadModel(path);
    const time = (): number => {
      const start = performance.now();
      for (let i = 0; i < runs; i++) model.runSync(inputs);
      return ((performance.now() - start) * 1000) / runs;
    };
    const times: Record<'off' | 'on', number[]> = { off: [], on: [] };
    for (let round = -2; round < ROUNDS; round++) {
      const off = time();
      native.startAllocationLog(1 << 20);
      const on = time();
      native.stopAllocationLog();
      if (round < 0) continue;
      times.off.push(off);
      times.on.push(on);
    }
    await model.close();
    const values = ratios(times.on, times.off);
    console.log(`${name}: ${show(times.off)} us a run, watched ${show(times.on)}`);
    const bar: Bar = {
      name: `${name}, watched, of the same unwatched`,
      value: median(values),
      values,
      text: `${show(values, 3)}x`,
      bar: 1.2,
      direction: 'at most',
    };
    bars.push(bar);
    print(bar);
  }
  return bars;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await watching();
