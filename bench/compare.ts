// Does `tercel bench compare` tell differences from noise? tsx bench/compare.ts [PAIRS]
//
// Two runs of the same thing, again and again, and runs of a build that was slowed on purpose: each run of
// a model waits for a tenth of its time more.
import { spawnSync } from 'node:child_process';
import { cpSync, mkdtempSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { compareDocuments, readBenchDocument, type BenchDocument } from 'tercel/measure';
import { benchCase } from './models.js';
import { print, type Bar } from './statistics.js';

const root = fileURLToPath(new URL('..', import.meta.url));
const scratch = mkdtempSync(path.join(tmpdir(), 'tercel-compare-'));
const SLOWED = 5;

/** A copy of the build whose runSync() takes so many microseconds longer. */
function slowBuild(us: number): string {
  const folder = path.join(scratch, 'slow');
  cpSync(path.join(root, 'dist'), path.join(folder, 'dist'), { recursive: true });
  for (const shared of ['build', 'node_modules']) {
    symlinkSync(path.join(root, shared), path.join(folder, shared));
  }
  cpSync(path.join(root, 'package.json'), path.join(folder, 'package.json'));
  const file = path.join(folder, 'dist/runtime/model.js');
  const text = readFileSync(file, 'utf8');
  const call = 'const result = marshaller.call(this.#runSync);';
  if (!text.includes(call)) throw new Error('runSync() is not as it was');
  const wait = `for (const until = performance.now() + ${us / 1000}; performance.now() < until; ) ;`;
  writeFileSync(file, text.replace(call, `${call} ${wait}`));
  return path.join(folder, 'dist/cli/main.js');
}

let runs = 0;

function measure(program: string): BenchDocument {
  const { path: model } = benchCase('mlp');
  const output = path.join(scratch, `${++runs}.json`);
  const settings =
    '--call sync --duration 300ms --rounds 20 --launches 20 --stability 100% --warm-up 300ms --quiet';
  const { status, stderr } = spawnSync(
    process.execPath,
    [program, 'bench', model, ...settings.split(' '), '-o', output],
    { encoding: 'utf8' },
  );
  if (status !== 0) throw new Error(stderr);
  return readBenchDocument(output);
}

export async function comparing(pairs = 20): Promise<Bar[]> {
  const build = path.join(root, 'dist/cli/main.js');
  let told = 0;
  let us = 0;
  for (let i = 0; i < pairs; i++) {
    const both = [measure(build), measure(build)];
    us = both[0]!.points[0]!.rounds[0]!.p50Us;
    const rows = compareDocuments(both).rows.filter(({ metric }) => metric !== 'p99 ms');
    const differs = rows.filter(({ verdicts }) => verdicts[0] !== 'no difference');
    if (differs.length > 0) told++;
    const figures = rows.map(({ metric, ratios: [r], verdicts: [verdict] }) => {
      return `${metric} ${r!.value.toFixed(3)} (${r!.low.toFixed(3)}-${r!.high.toFixed(3)}) ${verdict}`;
    });
    console.log(`  the same, ${i + 1}: ${figures.join('; ')}`);
  }
  const slow = slowBuild(us / 10);
  let found = 0;
  for (let i = 0; i < SLOWED; i++) {
    const { rows } = compareDocuments([measure(build), measure(slow)]);
    const row = rows.find(({ metric }) => metric === 'inferences/s')!;
    if (row.verdicts[0] === 'worse') found++;
    const { value, low, high } = row.ratios[0]!;
    console.log(
      `  slowed by 10 %, ${i + 1}: ${value.toFixed(3)} (${low.toFixed(3)}-${high.toFixed(3)}) ${row.verdicts[0]}`,
    );
  }
  const bars: Bar[] = [
    {
      name: 'compare: two runs of the same, "no difference"',
      value: (pairs - told) / pairs,
      text: `${pairs - told} of ${pairs}`,
      bar: 0.95,
      direction: 'at least',
    },
    {
      name: 'compare: a build slowed by 10 %, found',
      value: found / SLOWED,
      text: `${found} of ${SLOWED}`,
      bar: 1,
      direction: 'at least',
    },
  ];
  bars.forEach(print);
  return bars;
}

if (process.argv[1] === fileURLToPath(import.meta.url))
  await comparing(Number(process.argv[2] ?? 20));
