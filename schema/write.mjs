// Writes the JSON Schema of model.json from the schema in the source: npm run schema
import { writeFileSync } from 'node:fs';
import { modelJsonSchema } from '../dist/engine/config/schema.js';

writeFileSync(
  new URL('./model.schema.json', import.meta.url),
  JSON.stringify(modelJsonSchema(), null, 2) + '\n',
);
