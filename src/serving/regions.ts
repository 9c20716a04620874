// Regions of system shared memory that clients registered.
import { SharedMemory, type SharedRegion } from '../runtime/shared-memory.js';
import { HttpError } from './errors.js';

/** The shared memory that an option allows. */
export function sharedMemoryOf(
  option: boolean | SharedMemory | undefined,
): SharedMemory | undefined {
  return option === true ? new SharedMemory() : option || undefined;
}

/** A region by its name. Throws HttpError (404). */
export function findRegions(memory: SharedMemory, name: string | undefined): SharedRegion[] {
  const regions = memory.list(name);
  if (name !== undefined && regions.length === 0) {
    throw new HttpError(404, `shared memory region "${name}" is not registered`);
  }
  return regions;
}
