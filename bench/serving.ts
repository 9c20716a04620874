// Is compute lost when large models are served? tsx bench/serving.ts
//
// The ResNet-like and MiniLM-like models over HTTP under load, against the best that C loops do with the
// same processors: batches of several sizes with all threads, and single-thread loops side by side. wrk
// takes its share of the same processors.
import os from 'node:os';
import { fileURLToPath } from 'node:url';
import { Floor } from './floor.js';
import { binaryRequest, load, Server, type LoadResult } from './load.js';
import { benchCase, libraryPath } from './models.js';
import { median, print, ratios, show, type Bar } from './statistics.js';

const ROUNDS = 5;
// Long enough that the requests on their way at the end, which wrk does not count, do not matter.
const CASES = [
  { name: 'resnet', connections: 8, batches: [1, 4], seconds: 12, runs: 8 },
  { name: 'minilm', connections: 64, batches: [1, 8, 64], seconds: 12, runs: 16 },
];

export async function serving(): Promise<Bar[]> {
  const bars: Bar[] = [];
  const processors = os.availableParallelism();
  for (const { name, connections, batches, seconds, runs } of CASES) {
    const { path, inputs, dimensions } = benchCase(name);
    const start = (batch: number, threads: number): Promise<Floor> =>
      Floor.start(libraryPath(), path, { dimensions: { ...dimensions, batch }, threads });
    const wide = await Promise.all(batches.map((batch) => start(batch, processors)));
    const side = await Promise.all(Array.from({ length: processors }, () => start(1, 1)));
    const server = await Server.start('tercel', path);
    const request = binaryRequest(inputs);
    const floors: number[] = [];
    const batchMs: number[] = [];
    const results: LoadResult[] = [];
    const cpu: number[] = [];
    for (let round = -1; round < ROUNDS; round++) {
      const rates: number[] = [];
      let lastMs = 0;
      for (const [i, floor] of wide.entries()) {
        const ns = await floor.measure(Math.max(2, Math.ceil(runs / batches[i]!)));
        rates.push((batches[i]! * 1e9) / ns);
        lastMs = ns / 1e6;
      }
      const ns = await Promise.all(side.map((floor) => floor.measure(runs)));
      rates.push(ns.reduce((sum, one) => sum + 1e9 / one, 0));
      const before = server.cpu();
      const result = load(server.url, request, connections, round < 0 ? 2 : seconds);
      if (result.errors) throw new Error(`${name}: ${result.errors} errors`);
      if (round < 0) continue;
      floors.push(Math.max(...rates));
      batchMs.push(lastMs);
      results.push(result);
      cpu.push((server.cpu() - before) / seconds);
    }
    for (const floor of [...wide, ...side]) floor.stop();
    server.stop();
    const ours = results.map(({ perSecond }) => perSecond);
    console.log(
      `${name}, ${connections} clients: C loops ${show(floors, 1)}/s, served ${show(ours, 1)}/s, ` +
        `load generator ${show(results.map((r) => r.cpu))} of a processor, server ${show(cpu)}`,
    );
    const ratio = ratios(ours, floors);
    bars.push({
      name: `${name}, served, of the C loops' best`,
      value: median(ratio),
      text: `${show(ratio, 3)}x`,
      values: ratio,
      bar: 0.95,
      direction: 'at least',
    });
    print(bars.at(-1)!);
    if (name === 'minilm') {
      const p99 = results.map(({ p99Us }, i) => p99Us / 1000 / batchMs[i]!);
      console.log(
        `  a batch of 64 runs ${show(batchMs, 0)} ms; p99 of 64 clients ${show(
          results.map(({ p99Us }) => p99Us / 1000),
          0,
        )} ms`,
      );
      bars.push({
        name: 'minilm, 64 clients: p99, of the run of a batch of 64',
        value: median(p99),
        text: `${show(p99)}x`,
        values: p99,
        bar: 2,
        direction: 'at most',
      });
      print(bars.at(-1)!);
    }
  }
  return bars;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await serving();
