// Writes the JSON Schemas of model.json and of bench results from the schemas in the source: npm run schema
import { writeFileSync } from 'node:fs';
import { modelJsonSchema } from '../dist/repository/config/schema.js';
import { benchJsonSchema } from '../dist/measure/bench/document.js';

for (const [name, schema] of [
  ['model', modelJsonSchema()],
  ['bench', benchJsonSchema()],
]) {
  writeFileSync(
    new URL(`./${name}.schema.json`, import.meta.url),
    JSON.stringify(schema, null, 2) + '\n',
  );
}
