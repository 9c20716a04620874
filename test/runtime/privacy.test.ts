// Telemetry is off: the library's uploader leaves a thread and files when it is on (seen with the same
// library and without Tercel: a thread more, and deviceid, onnxruntime.db, a mat-debug log and .ses).
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { expect, it } from 'vitest';
import { benchModel } from '../../models/generate.js';

const program = `
  import { promises, readdirSync, readFileSync } from 'node:fs';
  import { loadModel } from ${JSON.stringify(new URL('../../dist/index.js', import.meta.url).href)};
  const threads = () => readdirSync('/proc/self/task')
    .map((id) => readFileSync('/proc/self/task/' + id + '/comm', 'utf8').trim()).sort();
  // Node's own threads start on demand: have them all first.
  await Promise.all(Array.from({ length: 8 }, () => promises.readFile('/proc/self/status')));
  const before = threads();
  const model = await loadModel(${JSON.stringify(benchModel('tiny'))}, { inline: 'never', lanes: 1 });
  const x = { dtype: 'float32', shape: [1, 4], data: new Float32Array(4) };
  for (let i = 0; i < 100; i++) await model.run({ x });
  // The uploader needs a moment.
  await new Promise((resolve) => setTimeout(resolve, 1000));
  const during = threads();
  await model.close();
  console.log(JSON.stringify({ before, during }));`;

it.runIf(process.platform === 'linux')('starts no thread and writes no file', () => {
  const home = mkdtempSync(path.join(tmpdir(), 'tercel-home-'));
  try {
    // The library holds back by itself under CI: take away what tells it, and any opt-out.
    const env = Object.fromEntries(
      Object.entries(process.env).filter(
        ([name]) =>
          !/^(CI|GITHUB_|GITLAB_|JENKINS|TF_BUILD|BUILD_|ORT_|VITEST|NODE_ENV)/.test(name),
      ),
    );
    const said = execFileSync(process.execPath, ['--input-type=module', '-e', program], {
      encoding: 'utf8',
      cwd: home,
      env: { ...env, HOME: home, TMPDIR: home, XDG_CACHE_HOME: home, XDG_DATA_HOME: home },
    });
    const { before, during } = JSON.parse(said) as { before: string[]; during: string[] };
    expect(during.filter((name) => name === 'tercel-lane').length).toBe(1);
    expect(during.filter((name) => name !== 'tercel-lane')).toEqual(before);
    expect(readdirSync(home, { recursive: true })).toEqual([]);
  } finally {
    rmSync(home, { recursive: true });
  }
});
