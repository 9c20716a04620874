// Finds and reads a model's configuration, and holds it against the model.
import { InvalidInputError, ModelError } from '../../errors.js';
import type { Model } from '../model.js';
import { emptyConfig, type ModelConfig } from './model-config.js';
import { parseModelJson } from './schema.js';
import { parseTritonJson, parseTritonText } from './triton.js';

/** Names of configuration files in a model's folder, the first that is there counts. */
export const CONFIG_FILES = ['model.json', 'config.pbtxt'] as const;

/** Reads the text of a configuration file. Throws InvalidInputError naming the mistakes. */
export function parseConfig(text: string, file: string, model: string): ModelConfig {
  return file.endsWith('.pbtxt') ? parseTritonText(text, file, model) : parseModelJson(text, file);
}

/**
 * Reads the configuration that a load call brings: our model.json or Triton's, as JSON text.
 *
 * @throws InvalidInputError naming the mistakes
 */
export function parseOverride(text: string, model: string): ModelConfig {
  const file = `config of model "${model}"`;
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (cause) {
    throw new InvalidInputError(`${file}: ${(cause as Error).message}`, { cause });
  }
  if (typeof json !== 'object' || json === null || Array.isArray(json)) {
    throw new InvalidInputError(`${file}: expected an object`);
  }
  const isTriton =
    ['name', 'platform', 'backend', 'input', 'output'].some((key) => key in json) ||
    Object.keys(json).some((key) => key.includes('_'));
  return isTriton
    ? parseTritonJson(json as Record<string, unknown>, file, model)
    : parseModelJson(text, file);
}

/** No file: everything is derived from the model. */
export function derivedConfig(): ModelConfig {
  return emptyConfig();
}

/**
 * Sees that the model has what its configuration declares.
 *
 * @throws ModelError naming the input or output
 */
export function checkDeclared(config: ModelConfig, model: Model): void {
  for (const [role, declared, real] of [
    ['input', config.inputs, model.inputs],
    ['output', config.outputs, model.outputs],
  ] as const) {
    for (const { name, dtype, shape } of declared) {
      const value = real.find((candidate) => candidate.name === name);
      if (!value) {
        throw new ModelError(
          `the configuration declares ${role} "${name}"; the model has ${real.map((v) => `"${v.name}"`).join(', ')}`,
        );
      }
      const fits =
        shape === undefined ||
        // A tensor of unknown rank looks like a scalar.
        value.shape.length === 0 ||
        (shape.length === value.shape.length &&
          shape.every((dim, axis) => {
            const own = value.shape[axis]!;
            return dim < 0 || typeof own === 'string' || own === dim;
          }));
      if (value.dtype !== dtype || !fits) {
        throw new ModelError(
          `the configuration declares ${role} "${name}" as ${dtype}${shape ? `[${shape.join()}]` : ''}; ` +
            `the model has ${value.dtype}[${value.shape.join()}]`,
        );
      }
    }
    if (role === 'input' && declared.length > 0) {
      const missing = real.filter((value) => !declared.some(({ name }) => name === value.name));
      if (missing.length > 0) {
        throw new ModelError(
          `the configuration declares no input ${missing.map((v) => `"${v.name}"`).join(', ')}, which the model has`,
        );
      }
    }
  }
  if (config.maxBatchSize > 0) {
    const fixed = [...model.inputs, ...model.outputs].find(
      ({ shape }) => shape.length > 0 && typeof shape[0] === 'number',
    );
    if (fixed) {
      throw new ModelError(
        `max_batch_size is ${config.maxBatchSize}, but the first dimension of "${fixed.name}" is fixed at ${fixed.shape[0]}`,
      );
    }
  }
}
