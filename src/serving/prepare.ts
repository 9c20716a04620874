// What requests of one plan need of the servable that they are for, found once.
import type { Plan, RequestShape } from '../protocol/plan.js';
import { readPriority } from '../runtime/run-options.js';
import { isTensor } from '../tensor.js';
import type { Inputs, OutputSelection, Servable } from '../types/servable.js';
import { checkOutputs } from './typed-inputs.js';

/** What the plan's requests need of the servable. Throws InvalidInputError. */
export function prepare(plan: Plan, servable: Servable): void {
  const { outputs, priority } = plan.request;
  const names = outputs?.map(({ name }) => name);
  const level = readPriority({ priority: priority ?? servable.about?.defaults?.priority });
  // All or nothing: what is half another servable's must not be started.
  const prepared = prepareOutputs(servable, names);
  const timeoutMs = timeoutOf(plan.request, servable);
  Object.assign(plan, { prepared, priority: level, timeoutMs, preparedFor: servable });
}

/** What a servable is started with for these outputs. Throws InvalidInputError. */
export function prepareOutputs(servable: Servable, outputs: OutputSelection | undefined): unknown {
  if (servable.prepare) return servable.prepare(outputs);
  return checkOutputs(servable, outputs);
}

/** The least of what is asked and what is configured; 0 where neither says. */
export function timeoutOf(request: RequestShape, servable: Servable): number {
  const { timeoutMs, timeoutOverride = true } = servable.about?.defaults ?? {};
  const asked = timeoutOverride ? request.timeoutMs : undefined;
  const least = Math.min(asked ?? Infinity, timeoutMs ?? Infinity);
  return least === Infinity ? 0 : least;
}

/** Rows of the first input, of a servable that has rows; else 1. */
export function rowsOf({ inputs: declared }: Servable, inputs: Inputs): number {
  const [first] = declared;
  const value = first && typeof first.shape[0] === 'string' ? inputs[first.name] : undefined;
  return isTensor(value) ? (value.shape[0] ?? 1) : 1;
}
