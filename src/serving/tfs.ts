// What the transports of TensorFlow Serving's protocol have in common.
import type { Servable } from '../catalog/model-servable.js';
import { InvalidInputError } from '../errors.js';
import { versionStatuses } from '../protocol/tfs/describe.js';
import { isTensor, type Tensor, type Value } from '../tensor.js';
import { find, type ModelParams } from './about.js';
import { indexOf } from './control.js';
import { withDefaults } from './defaults.js';
import type { Serving } from './serving.js';

/** The statuses of a model's versions, or of one. Throws HttpError (404). */
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
  if (entries.length === 0)
    find(serving.catalog, version === undefined ? { model } : { model, version });
  return versionStatuses(entries);
}

/** Runs a model as a request of its own; outputs by name, in the model's order. */
export async function runServable(
  { model, config }: Servable,
  inputs: Record<string, Tensor>,
  options: {
    signal: AbortSignal;
    concurrent: boolean;
    timeoutMs?: number | undefined;
    outputs?: string[] | undefined;
  },
): Promise<Record<string, Tensor>> {
  const { signal, concurrent, timeoutMs, outputs } = options;
  const values = await model.run<Record<string, Value>>(inputs, {
    ...withDefaults(config, timeoutMs === undefined ? {} : { timeoutMs }),
    ...(outputs && { outputs }),
    signal,
    results: 'shared',
    concurrent,
  });
  for (const [name, value] of Object.entries(values)) {
    if (!isTensor(value)) {
      throw new InvalidInputError(
        `output "${name}" is no tensor; TensorFlow Serving's protocol carries tensors only`,
      );
    }
  }
  return values as Record<string, Tensor>;
}
