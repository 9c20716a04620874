// A model watched while it serves.
import { ModelServable } from '../catalog/model-servable.js';
import { InvalidInputError, TercelError } from '../errors.js';
import { observe, type Observation } from '../runtime/observe.js';
import type { Servable } from '../types/servable.js';
import type { Exchange } from './exchange.js';

/**
 * What a model does for some seconds; it ends when the exchange does.
 *
 * @throws (rejects) TercelError CONFLICT while it is watched by another, UNIMPLEMENTED for what is no model
 */
export async function watch(
  exchange: Exchange,
  servable: Servable,
  seconds: number,
): Promise<Observation> {
  if (!(servable instanceof ModelServable)) {
    throw new TercelError('UNIMPLEMENTED', `"${servable.name}" is no model that could be profiled`);
  }
  const controller = new AbortController();
  exchange.running = { cancel: (reason) => controller.abort(reason) };
  try {
    return await observe(servable.model, seconds, controller.signal);
  } catch (error) {
    if (!(error instanceof InvalidInputError)) throw error;
    throw new TercelError('CONFLICT', error.message, { cause: error });
  } finally {
    exchange.running = undefined;
  }
}
