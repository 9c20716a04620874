// What options must be, and how to say that they are not.
import { InvalidInputError } from '../errors.js';

/** The most that native code takes for a count. */
const MOST = 0x7fffffff;

export function failOption(name: string, expected: string, got: unknown): never {
  throw new InvalidInputError(
    `option "${name}": expected ${expected}, got ${JSON.stringify(got) ?? typeof got}`,
  );
}

/** @throws InvalidInputError when the value is no whole number of the range */
export function wholeOption(name: string, value: unknown, least: number, most = MOST): number {
  if (Number.isSafeInteger(value) && (value as number) >= least && (value as number) <= most) {
    return value as number;
  }
  const range = most < MOST ? `from ${least} to ${most}` : `of ${least} or more`;
  return failOption(name, `a whole number ${range}`, value);
}
