// Bodies of requests about the server, which carry no tensors.
import { InvalidInputError } from '../../errors.js';
import type { InferBody } from './body.js';

/** The body's JSON; undefined where there is none. Throws InvalidInputError for what is none. */
export function jsonOf(body: InferBody | undefined): unknown {
  if (!body?.json) return undefined;
  try {
    return JSON.parse(body.json.toString()) as unknown;
  } catch (cause) {
    throw new InvalidInputError(`the JSON does not parse: ${(cause as Error).message}`, { cause });
  }
}
