// How soon does a program have its first result, and what does a model cost it? tsx bench/startup.ts
//
// A process that loads a model of 25 MB, runs it once and says how much memory it holds, by Tercel and by
// onnxruntime-node, in turns.
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { benchModel, generate } from '../models/generate.js';
import { median, print, ratios, show, type Bar } from './statistics.js';

generate();

const program = fileURLToPath(new URL('./servers/once.mjs', import.meta.url));
const ROUNDS = 7;

interface Once {
  ms: number;
  rss: number;
}

function once(peer: string, model: string): Once {
  const start = performance.now();
  const { stdout, stderr, status } = spawnSync(process.execPath, [program, peer, model], {
    encoding: 'utf8',
  });
  if (status !== 0) throw new Error(`${peer}: ${stderr}`);
  return { ms: performance.now() - start, rss: Number(stdout) };
}

export function startup(): Bar[] {
  const model = benchModel('weights25');
  const times: Record<string, number[]> = { tercel: [], 'onnxruntime-node': [] };
  const memory: Record<string, number[]> = { tercel: [], 'onnxruntime-node': [] };
  for (let round = -1; round < ROUNDS; round++) {
    for (const peer of Object.keys(times)) {
      const { ms, rss } = once(peer, model);
      if (round < 0) continue;
      times[peer]!.push(ms);
      memory[peer]!.push(rss / 2 ** 20);
    }
  }
  const peers = Object.keys(times).map(
    (peer) => `${peer} ${show(times[peer]!, 0)} ms, ${show(memory[peer]!, 0)} MiB`,
  );
  console.log(`a process with a model of 25 MB, to its first result: ${peers.join('; ')}`);
  const bars = (
    [
      ['start to first result, of onnxruntime-node', times, 1.2],
      ['memory of the process, of onnxruntime-node', memory, 1.1],
    ] as const
  ).map(([name, of, bar]): Bar => {
    const values = ratios(of['tercel']!, of['onnxruntime-node']!);
    return {
      name,
      value: median(values),
      values,
      text: `${show(values)}x`,
      bar,
      direction: 'at most',
    };
  });
  bars.forEach(print);
  return bars;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) startup();
