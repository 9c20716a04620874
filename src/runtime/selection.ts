// Which outputs a call asks for.
import { InvalidInputError } from '../errors.js';
import { unknownName } from '../names.js';
import type { Tensor } from '../tensor.js';
import type { OutputSelection } from '../types/servable.js';

/** The outputs that a call asks for, and the tensors given for them. */
export interface Selection {
  readonly indices: readonly number[];
  readonly given: readonly (Tensor | undefined)[];
  /** Whether any is given. */
  readonly anyGiven: boolean;
}

/** Reads what callers say of a model's outputs. */
export class OutputSelector {
  /** All of them, made anew. */
  readonly all: Selection;
  readonly #names: readonly string[];
  readonly #index = new Map<string, number>();
  #lastOutputs: OutputSelection | undefined;
  #lastSelection: Selection | undefined;

  constructor(names: readonly string[]) {
    this.#names = names;
    names.forEach((name, index) => this.#index.set(name, index));
    this.all = {
      indices: names.map((_, index) => index),
      given: names.map(() => undefined),
      anyGiven: false,
    };
  }

  /** Throws InvalidInputError for a name that the model has not. */
  select(outputs: OutputSelection): Selection {
    // The same object is the usual case in a loop; what is in it may have changed.
    if (outputs === this.#lastOutputs && this.#isStill(outputs)) return this.#lastSelection!;
    const selection = this.#make(outputs);
    this.#lastOutputs = outputs;
    this.#lastSelection = selection;
    return selection;
  }

  /** A selection of its own, to be kept by the caller. */
  selectNew(outputs: OutputSelection): Selection {
    return this.#make(outputs);
  }

  #isStill(outputs: OutputSelection): boolean {
    if (Array.isArray(outputs)) return false;
    const { indices, given } = this.#lastSelection!;
    let count = 0;
    for (const _ in outputs) count++;
    if (count !== indices.length) return false;
    for (let i = 0; i < count; i++) {
      const tensor = (outputs as Record<string, Tensor | null>)[this.#names[indices[i]!]!];
      if (tensor === undefined || (tensor ?? undefined) !== given[i]) return false;
    }
    return true;
  }

  #make(outputs: OutputSelection): Selection {
    const indices: number[] = [];
    const given: (Tensor | undefined)[] = [];
    let anyGiven = false;
    const named = Array.isArray(outputs);
    for (const name of named ? (outputs as readonly string[]) : Object.keys(outputs)) {
      const index = this.#index.get(name);
      if (index === undefined) throw unknownName('output', name, this.#names);
      if (indices.includes(index))
        throw new InvalidInputError(`output "${name}" is asked for twice`);
      const tensor = named ? null : (outputs as Record<string, Tensor | null>)[name];
      indices.push(index);
      given.push(tensor ?? undefined);
      if (tensor) anyGiven = true;
    }
    if (indices.length === 0) throw new InvalidInputError('outputs: no output is asked for');
    return { indices, given, anyGiven };
  }
}
