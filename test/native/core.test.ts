// The core's own tests, without Node: build/tests/tercel_core_tests. native/test/sanitize.sh runs the
// same ones under the sanitizers.
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';
import { coreTestArguments } from './arguments.js';

it('passes', () => {
  const program = fileURLToPath(new URL('../../build/tests/tercel_core_tests', import.meta.url));
  const { stdout, stderr, status } = spawnSync(program, coreTestArguments(), { encoding: 'utf8' });
  expect(`${stdout}${stderr}`).toMatch(/^[1-9][0-9]* passed, 0 failed$/m);
  expect(status).toBe(0);
});
