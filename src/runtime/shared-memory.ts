// System shared memory: regions that clients on this machine made, under the names they gave them.
import { InvalidInputError } from '../errors.js';
import { native } from '../native.js';
import { startRuntime } from './runtime.js';

/** A registered region. */
export interface SharedRegion {
  readonly name: string;
  /** The object's name, as for shm_open(). */
  readonly key: string;
  /** Where the region begins in the object, and how long it is, in bytes. */
  readonly offset: number;
  readonly bytes: number;
}

interface Mapped extends SharedRegion {
  readonly memory: Uint8Array;
}

/** Regions by name. Runs use what lies in them in place. */
export class SharedMemory {
  readonly #regions = new Map<string, Mapped>();

  /**
   * Maps a region.
   *
   * @throws InvalidInputError for a name that is taken, and for what cannot be mapped
   */
  register({ name, key, offset, bytes }: SharedRegion): void {
    if (name === '') throw new InvalidInputError('shared memory: a region needs a name');
    if (this.#regions.has(name)) {
      throw new InvalidInputError(`shared memory region "${name}" is registered already`);
    }
    startRuntime();
    const memory = new Uint8Array(native.mapShared(key, offset, bytes));
    this.#regions.set(name, { name, key, offset, bytes, memory });
  }

  /** Lets a region go, or all of them; what runs on it ends first. False: there is none of the name. */
  unregister(name?: string): boolean {
    const leaving = name === undefined ? [...this.#regions.keys()] : [name];
    for (const each of leaving) {
      const region = this.#regions.get(each);
      if (!region) return false;
      this.#regions.delete(each);
      native.detachShared(region.memory.buffer as ArrayBuffer);
    }
    return true;
  }

  /** The regions, or the one of a name; none where there is none. */
  list(name?: string): SharedRegion[] {
    const found = name === undefined ? [...this.#regions.values()] : [this.#regions.get(name)];
    return found.flatMap((region) => {
      if (!region) return [];
      const { memory: _memory, ...rest } = region;
      return [rest];
    });
  }

  /**
   * The bytes of a span.
   *
   * @throws InvalidInputError for a region that is not there, a span beyond its end, and an object that
   *   was cut short since
   */
  span({ region, offset, bytes }: { region: string; offset: number; bytes: number }): Uint8Array {
    const found = this.#regions.get(region);
    if (!found) throw new InvalidInputError(`shared memory region "${region}" is not registered`);
    const { memory } = found;
    if (offset > memory.length || bytes > memory.length - offset) {
      throw new InvalidInputError(
        `shared memory region "${region}" has ${memory.length} bytes; ${bytes} from ${offset} on do not fit`,
      );
    }
    // Touching what is no longer there would end the process.
    if (!native.sharedIntact(memory.buffer as ArrayBuffer)) {
      throw new InvalidInputError(`shared memory region "${region}": its object was cut short`);
    }
    return memory.subarray(offset, offset + bytes);
  }
}
