// Programs in a process of their own, for what is fixed by the first model of one.
import { execFileSync } from 'node:child_process';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

/** A runtime that pins nothing, has a GPU of the host's memory, and says what it was asked for. */
export const fakeCuda = fileURLToPath(
  new URL('../../build/tests/fake-cuda/libcudart.so.12', import.meta.url),
);
/** Where it lies, and an NVML that makes its readings up. */
export const fakeCudaFolder = path.dirname(fakeCuda);

/** What a program that has Tercel as `tercel` prints, as JSON. */
export function inProcess(program: string, env: Record<string, string> = {}): unknown {
  const index = JSON.stringify(new URL('../../dist/index.js', import.meta.url).href);
  const said = execFileSync(
    process.execPath,
    ['--input-type=module', '-e', `import * as tercel from ${index};\n${program}`],
    { encoding: 'utf8', env: { ...process.env, ...env } },
  );
  return JSON.parse(said);
}
