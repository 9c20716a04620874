// Command line of the core's tests: the library and the models they run. As a program, prints it.
import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { libraryPath } from '../../bench/models.js';
import { benchFolder, benchModel } from '../../models/generate.js';
import { lookup, slow } from '../support/models.js';

export function coreTestArguments(): string[] {
  const file = path.join(benchFolder, 'slow.onnx');
  mkdirSync(benchFolder, { recursive: true });
  writeFileSync(file, slow());
  const table = path.join(benchFolder, 'lookup.onnx');
  writeFileSync(table, lookup());
  return [libraryPath(), benchModel('tiny'), file, table];
}

if (process.argv[1] === fileURLToPath(import.meta.url)) console.log(coreTestArguments().join('\n'));
