// Writes the repository that the interoperability tests serve: tsx test/interop/repository.ts FOLDER
import { copyFileSync, cpSync, mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { FLOAT, INT64, STRING } from '../../models/onnx.js';
import { identity, slow } from '../support/models.js';
import { hasSharedModels, sharedModels } from '../support/shared.js';

const folder = process.argv[2]!;
const root = fileURLToPath(new URL('../..', import.meta.url));

function put(name: string, version: number, bytes: Uint8Array): void {
  const place = path.join(folder, name, String(version));
  mkdirSync(place, { recursive: true });
  writeFileSync(path.join(place, 'model.onnx'), bytes);
}

/** ONNX's element types by the protocol's name. */
const types = {
  BOOL: 9,
  UINT8: 2,
  UINT16: 4,
  UINT32: 12,
  UINT64: 13,
  INT8: 3,
  INT16: 5,
  INT32: 6,
  INT64,
  FP16: 10,
  BF16: 16,
  FP32: FLOAT,
  FP64: 11,
  BYTES: STRING,
};
for (const [name, type] of Object.entries(types)) {
  put(`identity_${name.toLowerCase()}`, 1, identity(type, ['n', 'm']));
}
put('versions', 1, identity(FLOAT, ['n']));
put('versions', 3, identity(FLOAT, ['n']));
writeFileSync(
  path.join(folder, 'versions', 'model.json'),
  JSON.stringify({ versions: 'all', labels: { stable: 1, canary: 3 } }),
);
put('labelled', 1, identity(FLOAT, ['n', 4]));
writeFileSync(
  path.join(folder, 'labelled', 'model.json'),
  JSON.stringify({ outputs: [{ name: 'y', dtype: 'float32', labelFile: 'labels.txt' }] }),
);
writeFileSync(path.join(folder, 'labelled', 'labels.txt'), 'cat\ndog\ncow\nowl\n');
put('slow', 1, slow());
mkdirSync(path.join(folder, 'digits', '1'), { recursive: true });
copyFileSync(
  path.join(root, 'models/digits/1/model.onnx'),
  path.join(folder, 'digits', '1', 'model.onnx'),
);
if (hasSharedModels) {
  cpSync(path.join(sharedModels, 'triton-repository'), folder, { recursive: true });
}
