import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vitest/config';
import { TEST_MS } from './test/support/wait.js';

// Tests use the package as its users do: the built one, by its name.
const dist = (file: string): string => fileURLToPath(new URL(`./dist/${file}`, import.meta.url));

/** Tests that judge time. */
const TIMING = ['test/**/*.timing.test.ts'];

export default defineConfig({
  resolve: {
    alias: [
      { find: /^tercel\/onnxruntime$/, replacement: dist('onnxruntime.js') },
      { find: /^tercel\/measure$/, replacement: dist('measure/index.js') },
      { find: /^tercel\/client$/, replacement: dist('client/index.js') },
      { find: /^tercel\/(.+)$/, replacement: dist('$1.js') },
      { find: /^tercel$/, replacement: dist('index.js') },
    ],
  },
  test: {
    // A process each: what one file does to memory or threads is not another's.
    pool: 'forks',
    maxWorkers: 2,
    testTimeout: TEST_MS,
    hookTimeout: TEST_MS,
    projects: [
      {
        extends: true,
        test: {
          name: 'tests',
          include: ['test/**/*.test.ts'],
          exclude: TIMING,
          sequence: { groupOrder: 0 },
        },
      },
      // Alone, after all others: they take the processors that the time is measured on. A quiet machine needs
      // no retry.
      {
        extends: true,
        test: {
          name: 'timing',
          include: TIMING,
          setupFiles: ['test/support/first.ts'],
          maxWorkers: 1,
          retry: 6,
          sequence: { groupOrder: 1 },
        },
      },
    ],
  },
});
