// Triton's system shared memory extension in JSON: what a client registers, and what is registered.
//
// Source: Triton's "Shared-Memory Extension".
import { InvalidInputError } from '../../errors.js';

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
