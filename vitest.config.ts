import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vitest/config';

// Tests use the package as its users do: the built one, by its name.
const dist = (file: string): string => fileURLToPath(new URL(`./dist/${file}`, import.meta.url));

const TIMING = ['test/measure/truth.test.ts'];

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
    testTimeout: 60_000,
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
      // Behind all others: they take the processors that the time is measured on.
      { extends: true, test: { name: 'timing', include: TIMING, sequence: { groupOrder: 1 } } },
    ],
  },
});
