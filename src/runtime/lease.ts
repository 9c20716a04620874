// Memory of the arena's, leased to JS.
import { InvalidInputError } from '../errors.js';
import { native } from '../native.js';
import {
  bytesPerElement,
  countElements,
  dtypeCodes,
  viewOf,
  type DType,
  type Tensor,
} from '../tensor.js';
import { startRuntime } from './runtime.js';

/** Tensors of as many bytes are worth a lease: runs take them as they are. */
export const LEASE_FROM_BYTES = 16 * 1024;
/** Leases that a pool keeps, together. */
const MAX_KEPT_BYTES = 64 << 20;

/**
 * A cleared tensor in the arena's memory, aligned to 64 bytes. run() uses it in place: nothing is
 * copied on the way in, and as a given output nothing on the way out. Its memory comes back when the
 * data is garbage collected and no run uses it.
 *
 * @param shape dimensions, whole numbers of 0 or more; [] is a scalar
 * @throws InvalidInputError for a shape or dtype that cannot be; OverloadError when the arena is full
 */
export function allocate<D extends Exclude<DType, 'string'>>(
  dtype: D,
  shape: readonly number[],
): Tensor<D> {
  if (dtypeCodes[dtype] === undefined || (dtype as DType) === 'string') {
    throw new InvalidInputError(`allocate: dtype ${JSON.stringify(dtype)} has no fixed size`);
  }
  const count = countElements(shape);
  startRuntime();
  const buffer = native.allocate(count * bytesPerElement(dtype));
  return { dtype, shape: [...shape], data: viewOf(dtype, buffer) as Tensor<D>['data'] };
}

/**
 * Leases of bodies that were answered, for the next of the same length. V8 collects all garbage each time
 * some 64 MB came from outside its heap: 100 images of 600 kB a second cost 6 % of two processors that way.
 */
export class LeasePool {
  #bytes = 0;
  readonly #bySize = new Map<number, Uint8Array[]>();

  /** @throws OverloadError when the arena is full */
  take(size: number): Uint8Array {
    const kept = this.#bySize.get(size)?.pop();
    if (kept) {
      this.#bytes -= size;
      return kept;
    }
    try {
      return allocate('uint8', [size]).data as Uint8Array;
    } catch (error) {
      this.clear(); // what others need is not kept
      throw error;
    }
  }

  /** Nobody else may read or write it any more. */
  give(body: Uint8Array): void {
    const size = body.length;
    if (size < LEASE_FROM_BYTES || this.#bytes + size > MAX_KEPT_BYTES) return;
    this.#bytes += size;
    const others = this.#bySize.get(size);
    if (others) others.push(body);
    else this.#bySize.set(size, [body]);
  }

  clear(): void {
    this.#bytes = 0;
    this.#bySize.clear();
  }
}
