// Loads and unloads a model of 25 MB by the repository, again and again, with requests in between, and
// shows that the memory is flat: node --expose-gc test/soak/cycles.mjs [CYCLES]
import { mkdirSync, mkdtempSync, linkSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { createEngine, stats } from '../../dist/index.js';

const cycles = Number(process.argv[2] ?? 200);
const source = fileURLToPath(new URL('../../models/bench/weights25/1/model.onnx', import.meta.url));
const folder = mkdtempSync(path.join(tmpdir(), 'tercel-cycles-'));
mkdirSync(path.join(folder, 'm', '1'), { recursive: true });
try {
  linkSync(source, path.join(folder, 'm', '1', 'model.onnx'));
} catch {
  const { copyFileSync } = await import('node:fs'); // another file system
  copyFileSync(source, path.join(folder, 'm', '1', 'model.onnx'));
}
const engine = createEngine();
const repository = await engine.loadRepository(folder, { control: 'explicit' });
const x = { dtype: 'float32', shape: [1, 2560], data: new Float32Array(2560).fill(0.5) };
const rss = [];
for (let cycle = 0; cycle < cycles; cycle++) {
  await repository.load('m');
  await Promise.all(
    Array.from({ length: 8 }, () => engine.infer('m', { x }, { concurrent: true })),
  );
  await repository.unload('m');
  globalThis.gc();
  rss.push(process.memoryUsage.rss() / 2 ** 20);
}
await engine.close();
rmSync(folder, { recursive: true });
const middle = (list) => [...list].sort((a, b) => a - b)[list.length >> 1];
const quarter = Math.max(4, cycles >> 2);
const early = middle(rss.slice(quarter, 2 * quarter));
const late = middle(rss.slice(-quarter));
const report = {
  cycles,
  earlyMb: Number(early.toFixed(1)),
  lateMb: Number(late.toFixed(1)),
  growthMb: Number((late - early).toFixed(2)),
  leases: stats().leases,
  models: stats().models.length,
};
console.log(JSON.stringify(report));
// A model is 25 MB: one that stays in twenty would be seen.
process.exit(report.growthMb < 3 && report.leases === 0 && report.models === 0 ? 0 : 1);
