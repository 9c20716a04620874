// Is the account of memory right? tsx bench/memory.ts
//
// What the instruments say that a loaded model holds, and holds at its peak, against heaptrack, which sees
// every malloc() from outside. For heaptrack ONNX Runtime allocates by malloc() instead of from the arena,
// which is memory of the system's own; the numbers of bytes are the same. Its figures of a process that
// loads nothing are taken off. The inputs are large, so that the peak is in a run and not in the load.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { benchCase } from './models.js';
import { print, type Bar } from './statistics.js';

const program = fileURLToPath(new URL('servers/memory.mjs', import.meta.url));
const CASES = [
  { name: 'resnet', inputs: { image: { dtype: 'float32', shape: [32, 3, 224, 224] } } },
  {
    name: 'minilm',
    inputs: {
      input_ids: { dtype: 'int64', shape: [16, 256] },
      attention_mask: { dtype: 'int64', shape: [16, 256] },
    },
  },
];
const UNITS: Record<string, number> = { B: 1, K: 1e3, M: 1e6, G: 1e9 };

type Until = 'start' | 'load' | 'run';

function run(command: string, args: string[]): string {
  const { status, stdout, stderr, error } = spawnSync(command, args, {
    encoding: 'utf8',
    maxBuffer: 64 << 20,
  });
  if (error || status !== 0) throw new Error(`${command} is needed: ${error?.message ?? stderr}`);
  return stdout;
}

/** Bytes that heaptrack saw: at the peak, and never freed. */
function watched(args: string[]): { peak: number; left: number } {
  const folder = mkdtempSync(path.join(tmpdir(), 'tercel-memory-'));
  try {
    run('heaptrack', ['-o', path.join(folder, 'log'), process.execPath, '--expose-gc', ...args]);
    const text = run('heaptrack_print', [path.join(folder, readdirSync(folder)[0]!)]);
    const figure = (what: string): number => {
      const match = new RegExp(`^${what}: ([\\d.]+)([BKMG])`, 'm').exec(text);
      if (!match) throw new Error(`heaptrack says no ${what}`);
      return Number(match[1]) * UNITS[match[2]!]!;
    };
    return { peak: figure('peak heap memory consumption'), left: figure('total memory leaked') };
  } finally {
    rmSync(folder, { recursive: true });
  }
}

export function memory(): Bar[] {
  const bars: Bar[] = [];
  for (const { name, inputs } of CASES) {
    const args = (until: Until, memory: string): string[] => [
      program,
      until,
      benchCase(name).path,
      memory,
      JSON.stringify(inputs),
    ];
    const said = JSON.parse(run(process.execPath, ['--expose-gc', ...args('run', 'tercel')])) as {
      loaded: number;
      peak: number;
    };
    const [started, loaded, ran] = (['start', 'load', 'run'] as const).map((until) =>
      watched(args(until, 'malloc')),
    ) as [ReturnType<typeof watched>, ReturnType<typeof watched>, ReturnType<typeof watched>];
    if (ran.peak < loaded.peak * 1.05) throw new Error(`${name}: the peak is in the load`);
    for (const [what, ours, theirs] of [
      ['loaded', said.loaded, loaded.left - started.left],
      ['at the peak', said.peak, ran.peak - started.left],
    ] as const) {
      const off = Math.abs(ours / theirs - 1);
      bars.push({
        name: `${name}, memory ${what}: how far from heaptrack's`,
        value: off,
        text: `${(off * 100).toFixed(1)} % (${(ours / 1e6).toFixed(1)} and ${(theirs / 1e6).toFixed(1)} MB)`,
        bar: 0.05,
        direction: 'at most',
      });
      print(bars.at(-1)!);
    }
  }
  return bars;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) memory();
