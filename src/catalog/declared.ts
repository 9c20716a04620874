// Holds a configuration against the model that it is for.
import { ModelError } from '../errors.js';
import type { Model } from '../runtime/model.js';
import type { ModelConfig } from './model-config.js';

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
