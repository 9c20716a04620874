// The core's tests that judge time.
import { expect, it } from 'vitest';
import { runCoreTests } from '../support/core.js';

it('passes', () => {
  const { output, status } = runCoreTests('timing');
  expect(output).toMatch(/^[1-9][0-9]* passed, 0 failed$/m);
  expect(status).toBe(0);
});
