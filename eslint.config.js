// Lint: TypeScript's recommended checks, and who may import whom.
import eslint from '@eslint/js';
import tseslint from 'typescript-eslint';

/** Forbids imports whose path matches, in files of a folder. */
function forbid(files, ignores, patterns) {
  return {
    files,
    ignores,
    rules: { 'no-restricted-imports': ['error', { patterns }] },
  };
}

const upward = (...rooms) =>
  rooms.map((room) => ({
    group: [`**/${room}/*`],
    message: `Dependencies point down: cli -> server -> pipeline, protocol -> engine -> native.ts. "${room}" is above.`,
  }));
const fastify = {
  group: ['fastify', '@fastify/*'],
  message: 'Only server/ knows Fastify.',
};
const grpc = { group: ['@grpc/*'], message: 'Only server/ knows gRPC.' };
const undici = { group: ['undici'], message: 'Only client/ talks to servers.' };
const piscina = { group: ['piscina'], message: 'Only pipeline/pool.ts knows Piscina.' };
const addon = {
  group: ['**/native.js'],
  message: 'Only engine/ and measure/ talk to the addon.',
};
const commander = { group: ['commander'], message: 'Only cli/ parses command lines.' };

export default tseslint.config(
  { ignores: ['dist/', 'build/', 'node_modules/'] },
  eslint.configs.recommended,
  ...tseslint.configs.recommendedTypeChecked,
  {
    languageOptions: {
      parserOptions: {
        projectService: { allowDefaultProject: ['*.js', '*.mjs'] },
        tsconfigRootDir: import.meta.dirname,
      },
    },
    rules: {
      '@typescript-eslint/no-unused-vars': [
        'error',
        { varsIgnorePattern: '^_', argsIgnorePattern: '^_' },
      ],
      '@typescript-eslint/no-non-null-assertion': 'off',
      '@typescript-eslint/prefer-promise-reject-errors': 'off',
      '@typescript-eslint/no-for-in-array': 'off', // inputs by name are records
    },
  },
  {
    files: ['test/**', 'bench/**', 'models/**'],
    rules: {
      '@typescript-eslint/no-unsafe-assignment': 'off',
      '@typescript-eslint/no-unsafe-member-access': 'off',
      '@typescript-eslint/require-await': 'off',
      '@typescript-eslint/no-unsafe-call': 'off',
      '@typescript-eslint/no-unsafe-return': 'off',
      '@typescript-eslint/no-unsafe-argument': 'off',
    },
  },
  {
    files: ['**/*.js', '**/*.mjs'],
    extends: [tseslint.configs.disableTypeChecked],
    languageOptions: {
      globals: {
        Buffer: 'readonly',
        console: 'readonly',
        process: 'readonly',
        performance: 'readonly',
        setTimeout: 'readonly',
        clearTimeout: 'readonly',
        setImmediate: 'readonly',
        globalThis: 'readonly',
        URL: 'readonly',
      },
    },
  },
  forbid(
    ['src/*.ts'],
    ['src/index.ts', 'src/onnxruntime.ts'],
    [
      ...upward('engine', 'protocol', 'pipeline', 'server', 'cli', 'measure'),
      fastify,
      piscina,
      commander,
    ],
  ),
  forbid(
    ['src/onnxruntime.ts'],
    [],
    [...upward('protocol', 'server', 'cli'), fastify, addon, commander],
  ),
  forbid(['src/index.ts'], [], [...upward('cli'), fastify, piscina, addon, commander]),
  forbid(
    ['src/engine/**'],
    [],
    [
      ...upward('protocol', 'pipeline', 'server', 'cli', 'measure', 'client'),
      fastify,
      grpc,
      undici,
      piscina,
      commander,
    ],
  ),
  forbid(
    ['src/protocol/**'],
    [],
    [
      ...upward('pipeline', 'server', 'cli', 'measure', 'client'),
      fastify,
      grpc,
      undici,
      piscina,
      addon,
      commander,
    ],
  ),
  forbid(
    ['src/server/**'],
    [],
    [...upward('cli', 'measure', 'client'), undici, piscina, addon, commander],
  ),
  forbid(
    ['src/client/**'],
    [],
    // A client runs where no addon is: of the engine and the codecs it takes what is plain TypeScript.
    [
      ...upward('engine', 'server', 'cli', 'measure', 'pipeline'),
      fastify,
      grpc,
      piscina,
      addon,
      commander,
    ],
  ),
  // It measures what is below: the addon's clocks and memory, models, servers over their protocols.
  forbid(
    ['src/measure/**'],
    [],
    [...upward('server', 'cli'), fastify, grpc, undici, piscina, commander],
  ),
  forbid(['src/cli/**'], [], [fastify, grpc, undici, piscina, addon]),
  {
    files: ['src/**'],
    ignores: ['src/native.ts'],
    rules: {
      'no-restricted-syntax': [
        'error',
        { selector: 'Literal[value=/\\.node$/]', message: 'Only native.ts loads the addon.' },
      ],
    },
  },
);
