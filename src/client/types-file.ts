// TypeScript types of models, from their metadata.
import { dtypeOfName } from '../protocol/v2/datatypes.js';
import type { ModelMetadata, TensorMetadata } from './client.js';

const isName = /^[A-Za-z_$][\w$]*$/;

function key(name: string): string {
  return isName.test(name) ? name : JSON.stringify(name);
}

function fields(tensors: readonly TensorMetadata[], indent: string): string {
  return tensors
    .map(({ name, datatype, shape }) => {
      const dtype = dtypeOfName(datatype, name);
      const dims = shape.map((dim) => (Number(dim) < 0 ? '?' : String(Number(dim)))).join(', ');
      return `${indent}/** ${datatype} [${dims}] */\n${indent}${key(name)}: Tensor<'${dtype}'>;\n`;
    })
    .join('');
}

/**
 * A module with the type `Models`, for `new Client<Models>(url)`.
 *
 * @param from where the metadata is from, for the comment
 */
export function typesFile(models: readonly ModelMetadata[], from: string): string {
  // Without user and password.
  const shown = from.replace(/^(\w+:\/\/)[^/@]*@/, '$1').replace(/[\r\n]/g, ' ');
  const sorted = [...models].sort((a, b) => (a.name < b.name ? -1 : 1));
  const members = sorted.map(
    ({ name, inputs, outputs }) =>
      `  ${key(name)}: {\n    inputs: {\n${fields(inputs, '      ')}    };\n` +
      `    outputs: {\n${fields(outputs, '      ')}    };\n  };\n`,
  );
  return (
    `// Written by "tercel client types ${shown}": do not edit.\nimport type { Tensor } from 'tercel';\n\n` +
    `/** The models' inputs and outputs, for \`new Client<Models>(url)\`; ? is a dynamic dimension. */\n` +
    `export type Models = {\n${members.join('')}};\n`
  );
}
