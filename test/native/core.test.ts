// The core's own tests, without Node, but for those that judge time. native/test/sanitize.sh runs all of them
// under the sanitizers.
import { expect, it } from 'vitest';
import { runCoreTests } from '../support/core.js';

it('passes', () => {
  const { output, status } = runCoreTests('others');
  expect(output).toMatch(/^[1-9][0-9]* passed, 0 failed$/m);
  expect(status).toBe(0);
});
