// The core's tests, build/tests/tercel_core_tests.
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { coreTestArguments } from '../native/arguments.js';
import { COMMAND_MS } from './wait.js';

const program = fileURLToPath(new URL('../../build/tests/tercel_core_tests', import.meta.url));

/** @param group of native/test/main.cc */
export function runCoreTests(group: 'timing' | 'others'): {
  output: string;
  status: number | null;
} {
  const { stdout, stderr, status } = spawnSync(program, [...coreTestArguments(), group], {
    encoding: 'utf8',
    timeout: COMMAND_MS,
  });
  return { output: `${stdout}${stderr}`, status };
}
