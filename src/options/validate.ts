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

/**
 * @param prefix what stands before the options' names: `gpu.`, or nothing
 * @param unnamed options that are taken, but not named to who asks for one that does not exist
 * @throws InvalidInputError naming the first option that does not exist, and those that do
 */
export function knownOptions(
  prefix: string,
  options: object,
  known: string[],
  unnamed: string[] = [],
): void {
  for (const name of Object.keys(options)) {
    if (known.includes(name) || unnamed.includes(name)) continue;
    throw new InvalidInputError(
      `option "${prefix}${name}" does not exist; the options are ${known.join(', ')}`,
    );
  }
}
