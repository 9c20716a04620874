// What the transports of TensorFlow Serving's protocol have in common.
import { InvalidInputError } from '../errors.js';
import { versionStatuses } from '../protocol/tfs/describe.js';
import { isTensor, type Tensor } from '../tensor.js';
import type { Values } from '../types/servable.js';
import type { ModelParams } from './about.js';
import { indexOf } from './control.js';
import { findServable } from './find.js';
import type { Serving } from './serving.js';

/** The statuses of a model's versions, or of one. Throws NotFoundError. */
export async function statusesOf(
  serving: Serving,
  { model, version }: ModelParams,
): Promise<ReturnType<typeof versionStatuses>> {
  const resolved =
    version === undefined ? undefined : (serving.catalog.find(model, version)?.version ?? version);
  const entries = (await indexOf(serving, false)).filter(
    (entry) => entry.name === model && (resolved === undefined || entry.version === resolved),
  );
  // Raises the one error that says what there is instead.
  if (entries.length === 0) findServable(serving, model, version);
  return versionStatuses(entries);
}

/** Outputs as the protocol can carry them, by name in the model's order. Throws InvalidInputError. */
export function tensorsOf(values: Values): Record<string, Tensor> {
  for (const [name, value] of Object.entries(values)) {
    if (!isTensor(value)) {
      throw new InvalidInputError(
        `output "${name}" is no tensor; TensorFlow Serving's protocol carries tensors only`,
      );
    }
  }
  return values as Record<string, Tensor>;
}
