// Errors for inputs and outputs that do not exist or are missing: the same words wherever that is noticed.
import { InvalidInputError } from './errors.js';

const listed = (names: readonly string[]): string => names.map((name) => `"${name}"`).join(', ');

/** That there is no input or output of the name, and which there are. */
export function unknownName(
  role: string,
  name: string,
  known: readonly string[],
): InvalidInputError {
  return new InvalidInputError(`${role} "${name}" does not exist; the model has ${listed(known)}`);
}

/** That an input did not come, and which should. */
export function missingInput(name: string, known: readonly string[]): InvalidInputError {
  const count = `${known.length} input${known.length === 1 ? '' : 's'}`;
  return new InvalidInputError(
    `input "${name}" is missing; the model takes ${count}: ${listed(known)}`,
  );
}
