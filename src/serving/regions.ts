// Regions of system shared memory that clients registered, and outputs that are to be put there.
import { InvalidInputError, NotFoundError } from '../errors.js';
import { bytesOf } from '../protocol/v2/datatypes.js';
import { NO_SHARED_MEMORY, type RegionSpan } from '../protocol/v2/spans.js';
import type { RequestShape } from '../protocol/plan.js';
import { SharedMemory, type SharedRegion } from '../runtime/shared-memory.js';
import { isTensor } from '../tensor.js';
import type { Values } from '../types/servable.js';

/** The bytes of a span. Throws InvalidInputError for a region that is not there, or too small. */
export type Spans = (span: RegionSpan) => Uint8Array;

/** The regions of a server's clients, where they may have any. */
export class SharedRegions {
  readonly #memory: SharedMemory | undefined;
  /** Whether they are this server's alone: else others have them too. */
  readonly #isOwn: boolean;
  /** Where spans lie; undefined where clients may have none. */
  readonly spans: Spans | undefined;

  /** @param option true: regions of its own; a SharedMemory: those of several servers */
  constructor(option: boolean | SharedMemory | undefined) {
    const memory = option === true ? new SharedMemory() : option || undefined;
    this.#memory = memory;
    this.#isOwn = option === true;
    this.spans = memory && ((span) => memory.span(span));
  }

  get allowed(): boolean {
    return this.#memory !== undefined;
  }

  /** One by its name, or all. Throws NotFoundError; InvalidInputError where clients may have none. */
  find(name: string | undefined): SharedRegion[] {
    const regions = this.#get().list(name);
    if (name !== undefined && regions.length === 0) {
      throw new NotFoundError(`shared memory region "${name}" is not registered`);
    }
    return regions;
  }

  /** Throws InvalidInputError for a region that cannot be had. */
  register(region: { name: string; key: string; offset: number; bytes: number }): void {
    this.#get().register(region);
  }

  /** Forgets one, or all; one that is not there is nobody's mistake. */
  unregister(name: string | undefined): void {
    this.#get().unregister(name);
  }

  /** The server closes. */
  close(): void {
    if (this.#isOwn) this.#memory?.unregister();
  }

  #get(): SharedMemory {
    if (this.#memory) return this.#memory;
    throw new InvalidInputError(NO_SHARED_MEMORY);
  }
}

/**
 * Writes the outputs that a request wants in shared memory.
 *
 * @throws InvalidInputError for a span that is too small, or a region that is gone
 */
export function writeSpans({ outputs }: RequestShape, values: Values, spans: Spans): void {
  if (!outputs) return;
  for (const { name, span } of outputs as readonly {
    name: string;
    span?: RegionSpan | undefined;
  }[]) {
    const value = span && values[name];
    if (!span || !isTensor(value)) continue;
    const bytes = bytesOf(value);
    if (bytes.length > span.bytes) {
      throw new InvalidInputError(
        `output "${name}" has ${bytes.length} bytes, shared_memory_byte_size is ${span.bytes}`,
      );
    }
    spans({ ...span, bytes: bytes.length }).set(bytes);
  }
}
