// Triton's system shared memory extension: spans of regions that tensors' parameters name, what a client
// registers, and what is registered.
//
// Source: Triton's "Shared-Memory Extension".
import { InvalidInputError } from '../../errors.js';
import type { DType, Tensor } from '../../tensor.js';
import { elementsFromBinary } from './datatypes.js';
import type { Parameters } from './parameters.js';

/** What a server without shared memory says. */
export const NO_SHARED_MEMORY =
  'shared memory is not available on this server: it was started without --allow-shared-memory';

/** A span of a shared memory region, as a request names it. */
export interface RegionSpan {
  region: string;
  offset: number;
  bytes: number;
}

/** The bytes of a span. Throws InvalidInputError for a region that is not there, or too small. */
export type Regions = (span: RegionSpan) => Uint8Array;

/**
 * The span that a tensor's parameters name, if any.
 *
 * @throws InvalidInputError for parameters that are none, or where the server has no shared memory
 */
export function spanOf(
  parameters: Parameters,
  where: string,
  regions: Regions | undefined,
): RegionSpan | undefined {
  const region = parameters['shared_memory_region'];
  if (region === undefined) return undefined;
  if (!regions) throw new InvalidInputError(`${where}: ${NO_SHARED_MEMORY}`);
  const whole = (name: string, otherwise?: number): number => {
    const value = parameters[name] ?? otherwise;
    if (Number.isSafeInteger(value) && (value as number) >= 0) return value as number;
    throw new InvalidInputError(`${where}: ${name} must be a whole number of bytes`);
  };
  if (typeof region !== 'string' || region === '') {
    throw new InvalidInputError(`${where}: shared_memory_region must be a region's name`);
  }
  return {
    region,
    offset: whole('shared_memory_offset', 0),
    bytes: whole('shared_memory_byte_size'),
  };
}

/**
 * An input's elements where shared memory has them.
 *
 * @throws InvalidInputError for a span that is not there or does not fit the shape
 */
export function elementsInSpan(
  span: RegionSpan,
  regions: Regions,
  dtype: DType,
  count: number,
  where: string,
): Tensor['data'] {
  let bytes: Uint8Array;
  try {
    bytes = regions(span);
  } catch (cause) {
    throw new InvalidInputError(`${where}: ${(cause as Error).message}`, { cause });
  }
  return elementsFromBinary(dtype, bytes, count, where);
}

/** A span as the answer's parameters name it. */
export function spanParameters({ region, offset, bytes }: RegionSpan): Record<string, unknown> {
  return {
    shared_memory_region: region,
    ...(offset > 0 && { shared_memory_offset: offset }),
    shared_memory_byte_size: bytes,
  };
}

/** What `POST …/region/{r}/register` brings. Throws InvalidInputError. */
export function decodeRegisterRequest(json: unknown): {
  key: string;
  offset: number;
  bytes: number;
} {
  if (typeof json !== 'object' || json === null || Array.isArray(json)) {
    throw new InvalidInputError('the request must be a JSON object with key and byte_size');
  }
  const { key, offset = 0, byte_size: bytes } = json as Record<string, unknown>;
  if (typeof key !== 'string') throw new InvalidInputError('key: expected a string');
  for (const [name, value, least] of [
    ['offset', offset, 0],
    ['byte_size', bytes, 1],
  ] as const) {
    if (!Number.isSafeInteger(value) || (value as number) < least) {
      throw new InvalidInputError(`${name}: expected a whole number of ${least} or more`);
    }
  }
  return { key, offset: offset as number, bytes: bytes as number };
}

/** What `GET …/status` answers. */
export function regionStatus(
  regions: readonly { name: string; key: string; offset: number; bytes: number }[],
): object[] {
  return regions.map(({ name, key, offset, bytes }) => ({ name, key, offset, byte_size: bytes }));
}
