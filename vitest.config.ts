import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vitest/config';

// Tests use the package as its users do: the built one, by its name.
const dist = (file: string): string => fileURLToPath(new URL(`./dist/${file}`, import.meta.url));

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
    include: ['test/**/*.test.ts'],
    // A process each: what one file does to memory or threads is not another's.
    pool: 'forks',
    maxWorkers: 2,
    testTimeout: 60_000,
  },
});
