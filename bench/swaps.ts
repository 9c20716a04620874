// Do versions come and go unnoticed? tsx bench/swaps.ts
//
// Ten swaps under load, and the load of a model that takes seconds, against the same time without.
import { copyFileSync, linkSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { execFileSync, spawn } from 'node:child_process';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { createEngine, type Engine, type Tensor } from 'tercel';
import { encodeModel, FLOAT, floats } from '../models/onnx.js';
import { benchCase } from './models.js';
import { median, percentile, print, show, type Bar } from './statistics.js';

const ROUNDS = 7;
const HEAVY = '--write-heavy';

/** A chain of large matrices: 1 GB, seconds to read, optimise and pack. */
function heavy(): Uint8Array {
  const width = 2048;
  const count = 60;
  const weights = new Float32Array(width * width);
  for (let i = 0; i < weights.length; i++) weights[i] = ((i * 7919) % 1000) / 1e6;
  const value = (i: number): string => (i === 0 ? 'x' : i === count ? 'y' : `t${i}`);
  return encodeModel({
    name: 'heavy',
    inputs: { x: { tensor: FLOAT, shape: ['batch', width] } },
    outputs: { y: { tensor: FLOAT, shape: ['batch', width] } },
    initializers: Array.from({ length: count }, (_, i) => floats(`w${i}`, [width, width], weights)),
    nodes: Array.from({ length: count }, (_, i) => ({
      op: 'MatMul',
      inputs: [value(i), `w${i}`],
      outputs: [value(i + 1)],
    })),
  });
}

/**
 * Writes the heavy model, in a process of its own: its gigabytes are no concern of this one's collector.
 * On the disk when it returns: nobody measures how it gets there.
 */
function writeHeavy(file: string): void {
  const script = fileURLToPath(import.meta.url);
  execFileSync(process.execPath, [...process.execArgv, script, HEAVY, file], { stdio: 'inherit' });
}

/** Latencies in ms of a closed loop of clients while `work` goes on. */
async function latencies(
  engine: Engine,
  inputs: Record<string, Tensor>,
  work: () => Promise<void>,
  clients = 1,
): Promise<{ ms: number[]; failed: number }> {
  const ms: number[] = [];
  let failed = 0;
  let going = true;
  const client = async (): Promise<void> => {
    while (going) {
      const start = performance.now();
      try {
        await engine.infer('encoder', inputs);
        ms.push(performance.now() - start);
      } catch {
        failed++;
      }
    }
  };
  const loops = Array.from({ length: clients }, client);
  await work();
  going = false;
  await Promise.all(loops);
  return { ms, failed };
}

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

export async function swaps(): Promise<Bar[]> {
  const folder = mkdtempSync(path.join(tmpdir(), 'tercel-swaps-'));
  const original = path.join(folder, '.encoder.onnx');
  copyFileSync(benchCase('minilm').path, original);
  const put = (name: string, version: number): void => {
    // The file was there before: copying it would hold up the clients, which live in this thread.
    mkdirSync(path.join(folder, name, String(version)), { recursive: true });
    linkSync(original, path.join(folder, name, String(version), 'model.onnx'));
  };
  put('encoder', 1);
  const tokens: Tensor = { dtype: 'int64', shape: [1, 16], data: new BigInt64Array(16).fill(1n) };
  const inputs = { input_ids: tokens, attention_mask: tokens };
  const engine = createEngine();
  const repository = await engine.loadRepository(folder, {
    control: 'explicit',
    models: ['encoder'],
  });
  await latencies(engine, inputs, () => sleep(1000));

  let version = 1;
  const swapTen = async (): Promise<void> => {
    for (let i = 0; i < 10; i++) {
      put('encoder', ++version);
      await repository.load('encoder');
      await sleep(50);
    }
  };
  const failed: number[] = [];
  const worst: number[] = [];
  const control: number[] = [];
  for (let round = 0; round < 3; round++) {
    const start = performance.now();
    const during = await latencies(engine, inputs, swapTen);
    const took = performance.now() - start;
    const quiet = await latencies(engine, inputs, () => sleep(took));
    const p99 = percentile(during.ms, 99);
    failed.push(during.failed);
    worst.push(Math.max(...during.ms) / p99);
    control.push(Math.max(...quiet.ms) / percentile(quiet.ms, 99));
    console.log(
      `ten swaps in ${(took / 1000).toFixed(1)} s, ${during.ms.length} requests: p50 ${percentile(during.ms, 50).toFixed(1)}, ` +
        `p99 ${p99.toFixed(1)}, slowest ${Math.max(...during.ms).toFixed(1)} ms; without swaps p50 ${percentile(quiet.ms, 50).toFixed(1)}, ` +
        `p99 ${percentile(quiet.ms, 99).toFixed(1)}, slowest ${Math.max(...quiet.ms).toFixed(1)} ms`,
    );
  }
  const bars: Bar[] = [];
  const add = (name: string, values: number[], bar: number, direction: Bar['direction']): void => {
    bars.push({ name, value: median(values), text: show(values), values, bar, direction });
    print(bars.at(-1)!);
  };
  add('ten swaps: failed requests', failed, 0, 'at most');
  add('ten swaps: the slowest, of p99', worst, 2, 'at most');
  console.log(`  the slowest of p99 without swaps: ${show(control)}`);

  mkdirSync(path.join(folder, 'heavy', '1'), { recursive: true });
  writeHeavy(path.join(folder, 'heavy', '1', 'model.onnx'));
  // One run at a time leaves a processor to the load, two leave none.
  for (const clients of [1, 2]) {
    const ratio: number[] = [];
    const seconds: number[] = [];
    const busy: number[] = [];
    // Of a round's p99 little is behind: of all rounds together it is steadier.
    const all = { during: [] as number[], quiet: [] as number[], beside: [] as number[] };
    for (let round = 0; round < ROUNDS; round++) {
      let took = 0;
      const load = async (): Promise<void> => {
        const start = performance.now();
        await repository.load('heavy');
        took = performance.now() - start;
      };
      const during = await latencies(engine, inputs, load, clients);
      await repository.unload('heavy');
      const quiet = await latencies(engine, inputs, () => sleep(took), clients);
      // The control: a process that is busy with nothing at all, at the same priority.
      const idler = spawn('nice', ['-n', '19', process.execPath, '-e', 'for (;;) {}']);
      const beside = await latencies(engine, inputs, () => sleep(took), clients);
      idler.kill('SIGKILL');
      seconds.push(took / 1000);
      all.during.push(...during.ms);
      all.quiet.push(...quiet.ms);
      all.beside.push(...beside.ms);
      ratio.push(percentile(during.ms, 99) / percentile(quiet.ms, 99));
      busy.push(percentile(beside.ms, 99) / percentile(quiet.ms, 99));
    }
    const atOnce = clients === 1 ? 'one at a time' : 'two at once';
    add(`a heavy load: the others' p99, ${atOnce}, of the quiet one`, ratio, 1.2, 'at most');
    const [p99, quiet, beside] = [all.during, all.quiet, all.beside].map((ms) =>
      percentile(ms, 99),
    );
    console.log(
      `  1 GB loads in ${show(seconds)} s; of all ${all.during.length} requests of the rounds together ` +
        `${(p99! / quiet!).toFixed(2)} (${p99!.toFixed(1)} and ${quiet!.toFixed(1)} ms); beside a process that only ` +
        `counts ${show(busy)}, together ${(beside! / quiet!).toFixed(2)}`,
    );
  }
  await engine.close();
  rmSync(folder, { recursive: true });
  return bars;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  if (process.argv[2] === HEAVY) writeFileSync(process.argv[3]!, heavy(), { flush: true });
  else await swaps();
}
