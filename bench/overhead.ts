// What do the synchronous calls add to the bare C call? tsx bench/overhead.ts
//
// The C loop and Node run on one and the same processor, in turns of a few milliseconds.
import { execFileSync } from 'node:child_process';
import { loadModel } from 'tercel';
import { Floor } from './floor.js';
import { benchCase, libraryPath } from './models.js';
import { median, print, ratios, show, type Bar } from './statistics.js';

const ROUNDS = 60;
/** As many runs a turn: 5 to 10 ms. */
const RUNS: Record<string, number> = { tiny: 5000, mlp: 400 };
const BARS: Record<string, { binding: number; given: number }> = {
  tiny: { binding: 1.15, given: 1.6 },
  mlp: { binding: 1.05, given: 1.05 },
};

export async function overhead(): Promise<Bar[]> {
  execFileSync('taskset', ['-a', '-p', '-c', '1', String(process.pid)]);
  const bars: Bar[] = [];
  for (const name of ['tiny', 'mlp']) {
    const { path, inputs, outputs, dimensions } = benchCase(name);
    const runs = RUNS[name]!;
    const floor = await Floor.start(libraryPath(), path, { dimensions, cpu: '1' });
    const model = await loadModel(path);
    const binding = model.bind(
      Object.fromEntries(Object.entries(inputs).map(([input, tensor]) => [input, tensor.shape])),
    );
    const time = (run: () => void): number => {
      const start = process.hrtime.bigint();
      for (let i = 0; i < runs; i++) run();
      return Number(process.hrtime.bigint() - start) / runs;
    };
    const paths: Record<string, () => void> = {
      'binding.runSync()': binding.runSync,
      'model.runSync() with given outputs': () => void model.runSync(inputs, { outputs }),
      'model.runSync()': () => void model.runSync(inputs),
    };
    const floorNs: number[] = [];
    const ns: Record<string, number[]> = {};
    for (let round = -5; round < ROUNDS; round++) {
      const f = await floor.measure(runs);
      if (round >= 0) floorNs.push(f);
      for (const [label, run] of Object.entries(paths)) {
        const t = time(run);
        if (round >= 0) (ns[label] ??= []).push(t);
      }
    }
    floor.stop();
    await model.close();
    console.log(`${name}: C loop ${show(floorNs.map((n) => n / 1000))} us`);
    for (const label of Object.keys(paths)) {
      const ratio = ratios(ns[label]!, floorNs);
      const text = `${show(ratio, 3)}x, ${(median(ns[label]!) / 1000).toFixed(2)} us`;
      const limits = BARS[name]!;
      const bar =
        label === 'binding.runSync()'
          ? limits.binding
          : label.endsWith('outputs')
            ? limits.given
            : 0;
      if (bar) {
        const result: Bar = {
          name: `${name}: ${label}`,
          value: median(ratio),
          values: ratio,
          text,
          bar,
          direction: 'at most',
        };
        bars.push(result);
        print(result);
      } else {
        console.log(`  ${`${name}: ${label}`.padEnd(52)} ${text}`);
      }
    }
  }
  execFileSync('taskset', [
    '-a',
    '-p',
    '-c',
    `0-${(await import('node:os')).cpus().length - 1}`,
    String(process.pid),
  ]);
  return bars;
}

if (process.argv[1] === (await import('node:url')).fileURLToPath(import.meta.url)) await overhead();
