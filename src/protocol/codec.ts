// What turns the bytes of one protocol into tensors and back. Pure: no I/O.
import type { Inputs, Servable, Values } from '../types/servable.js';
import type { Plan } from './plan.js';

/** Where a codec puts what it finds out about a request: an exchange. */
export interface Decoding<P extends Plan> {
  /** The client's name of the request; '' where it has none. */
  id: string;
  plan: P | Plan | undefined;
}

/** @typeParam Frame a request as it came, part by part */
export interface Codec<Frame extends readonly unknown[], P extends Plan, Out> {
  /**
   * Reads a request: its plan and id go to `into`.
   *
   * @throws InvalidInputError naming what was wrong, what was expected and what came
   */
  read(into: Decoding<P>, ...frame: Frame): Inputs;
  /** Writes an answer. Throws InvalidInputError for an output that the protocol cannot carry. */
  write(plan: P, servable: Servable, id: string, values: Values): Out;
}
