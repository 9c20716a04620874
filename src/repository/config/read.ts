// Reads a model's configuration, whichever form it has.
import { InvalidInputError } from '../../errors.js';
import type { ModelConfig } from '../../catalog/model-config.js';
import { parseModelJson } from './schema.js';
import { parseTritonJson, parseTritonText } from './triton.js';

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
