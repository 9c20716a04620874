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
