// The servable that a request names, or why there is none: the one place that says so.
import { NotFoundError, TercelError } from '../errors.js';
import type { Servable } from '../types/servable.js';
import type { Serving } from './serving.js';

/**
 * The servable of a name, and of a version or label; undefined: the newest.
 *
 * @throws NotFoundError; TercelError UNAVAILABLE while it is loaded or unloaded; ClosedError
 */
export function findServable(serving: Serving, model: string, version?: string): Servable {
  return serving.catalog.find(model, version) ?? missing(serving, model, version);
}

/** @throws always */
function missing({ catalog }: Serving, model: string, version: string | undefined): never {
  catalog.checkOpen();
  const which = version === undefined ? `model "${model}"` : `model "${model}" version ${version}`;
  const state = catalog.stateOf(model, version);
  if (state === 'LOADING') throw new TercelError('UNAVAILABLE', `${which} is being loaded`);
  if (state === 'UNLOADING') throw new TercelError('UNAVAILABLE', `${which} is being unloaded`);
  const versions = catalog.versions(model);
  throw new NotFoundError(
    versions.length
      ? `model "${model}" has no version ${version}; it has ${versions.join(', ')}`
      : `model "${model}" does not exist`,
  );
}
