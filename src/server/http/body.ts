// A request's body on its way in: the JSON part, and the tensors after it, straight into the arena where that
// pays. The wire, small bodies and Fastify's routes all read by it.
import { InvalidInputError, TercelError } from '../../errors.js';
import { LEASE_FROM_BYTES, type LeasePool } from '../../runtime/lease.js';
import { HEADER_LENGTH } from './request-head.js';

/** What is known of a body before it comes. */
export interface BodyLengths {
  /** Bytes of the JSON part; undefined: all of it. */
  readonly jsonBytes?: number | undefined;
  /** Of the whole; undefined: until it ends. */
  readonly bytes?: number | undefined;
}

/** One of the two parts: memory that is filled, or chunks that are joined. */
class Part {
  readonly memory: Uint8Array | undefined;
  readonly #chunks: Uint8Array[] = [];
  #filled = 0;

  constructor(memory: Uint8Array | undefined) {
    this.memory = memory;
  }

  get filled(): number {
    return this.#filled;
  }

  /** Notes bytes that were read to where they go. */
  fill(bytes: number): void {
    this.#filled += bytes;
  }

  add(chunk: Uint8Array): void {
    if (this.memory) this.memory.set(chunk, this.#filled);
    else this.#chunks.push(chunk);
    this.#filled += chunk.length;
  }

  take(): Uint8Array {
    if (this.memory) {
      const isFull = this.#filled === this.memory.length;
      return isFull ? this.memory : this.memory.subarray(0, this.#filled);
    }
    return this.#chunks.length === 1 ? this.#chunks[0]! : Buffer.concat(this.#chunks, this.#filled);
  }
}

export class Body {
  readonly #json: Part;
  readonly #binary: Part;
  readonly #jsonBytes: number;
  readonly #bytes: number | undefined;
  readonly #limit: number;

  /**
   * @param limit of bytes, for a body whose length is not known
   * @param copies whether the memory of chunks is used again
   * @throws OverloadError when the arena is full
   */
  constructor({ jsonBytes, bytes }: BodyLengths, limit: number, pool: LeasePool, copies: boolean) {
    this.#jsonBytes = jsonBytes ?? Infinity;
    this.#bytes = bytes;
    this.#limit = limit;
    // JSON is no tensor, and wants no lease.
    const head = jsonBytes ?? bytes;
    this.#json = new Part(copies && head !== undefined ? Buffer.allocUnsafe(head) : undefined);
    const rest = bytes !== undefined && jsonBytes !== undefined ? bytes - jsonBytes : 0;
    const memory =
      rest >= LEASE_FROM_BYTES ? pool.take(rest) : copies ? Buffer.allocUnsafe(rest) : undefined;
    this.#binary = new Part(memory);
  }

  /** Bytes that came. */
  get received(): number {
    return this.#json.filled + this.#binary.filled;
  }

  /** Bytes that are still to come, of a body whose length is known. */
  get missing(): number {
    return this.#bytes! - this.received;
  }

  /** Where the next bytes may be read to; undefined for a few that are better copied. */
  place(): Uint8Array | undefined {
    const json = this.#json;
    const binary = this.#binary.memory;
    if (json.filled >= this.#jsonBytes) return binary?.subarray(this.#binary.filled);
    return binary === undefined || binary.length === 0
      ? json.memory?.subarray(json.filled)
      : undefined;
  }

  /** So many more bytes were read to place(). */
  filled(bytes: number): void {
    if (this.#json.filled >= this.#jsonBytes) this.#binary.fill(bytes);
    else this.#json.fill(bytes);
  }

  /**
   * Takes what is missing at most; how much that was.
   *
   * @throws TercelError TOO_LARGE for more than the limit
   */
  add(chunk: Uint8Array): number {
    const { received } = this;
    const most = this.#bytes === undefined ? chunk.length : this.missing;
    const taken = Math.min(chunk.length, most);
    if (received + taken > this.#limit) throw tooLarge(this.#limit);
    const inJson = Math.min(taken, Math.max(0, this.#jsonBytes - received));
    if (inJson > 0) this.#json.add(inJson === chunk.length ? chunk : chunk.subarray(0, inJson));
    if (taken > inJson) {
      this.#binary.add(
        inJson === 0 && taken === chunk.length ? chunk : chunk.subarray(inJson, taken),
      );
    }
    return taken;
  }

  get json(): Buffer {
    const text = this.#json.take();
    return Buffer.isBuffer(text) ? text : Buffer.from(text.buffer, text.byteOffset, text.length);
  }

  get binary(): Uint8Array {
    return this.#binary.take();
  }
}

export function tooLarge(limit: number): TercelError {
  return new TercelError('TOO_LARGE', `the body is larger than the limit of ${limit} bytes`);
}

/** That more JSON is announced than the body has. */
function jsonBeyond(jsonBytes: number, bytes: number): InvalidInputError {
  return new InvalidInputError(
    `Inference-Header-Content-Length: ${jsonBytes} is more than the body's ${bytes} bytes`,
  );
}

type Headers = Readonly<Record<string, string | string[] | undefined>>;

/**
 * What a request's headers say of its body.
 *
 * @throws InvalidInputError for a header out of range; TercelError TOO_LARGE
 */
export function lengthsOf(headers: Headers, limit: number): BodyLengths {
  const text = headers[HEADER_LENGTH];
  const jsonBytes = text === undefined ? undefined : Number(text);
  if (jsonBytes !== undefined) {
    const isNumber = typeof text === 'string' && /^[0-9]+$/.test(text);
    if (!isNumber || !Number.isSafeInteger(jsonBytes)) {
      throw new InvalidInputError(
        `Inference-Header-Content-Length: expected a number, got "${String(text)}"`,
      );
    }
  }
  // What is encoded has another length when it is decoded.
  const encoded = headers['content-encoding'] !== undefined;
  const declared = encoded ? NaN : Number(headers['content-length'] ?? NaN);
  const bytes = Number.isSafeInteger(declared) ? declared : undefined;
  if (bytes !== undefined && bytes > limit) throw tooLarge(limit);
  if (jsonBytes !== undefined && bytes !== undefined && jsonBytes > bytes) {
    throw jsonBeyond(jsonBytes, bytes);
  }
  return { jsonBytes, bytes };
}

/** A body as codecs want it. */
export interface InferBody {
  /** Undefined for a raw request, which is all binary. */
  readonly json: Buffer | undefined;
  readonly binary: Uint8Array;
  /** Of both. */
  readonly bytes: number;
}

/**
 * Reads a body to its end; undefined when there is none.
 *
 * @throws as lengthsOf() and Body.add()
 */
export async function readBody(
  headers: Headers,
  payload: AsyncIterable<Uint8Array>,
  limit: number,
  pool: LeasePool,
): Promise<InferBody | undefined> {
  const { jsonBytes, bytes } = lengthsOf(headers, limit);
  const body = new Body({ jsonBytes, bytes }, limit, pool, false);
  for await (const chunk of payload) body.add(chunk);
  const { received } = body;
  if (jsonBytes !== undefined && received < jsonBytes) throw jsonBeyond(jsonBytes, received);
  if (received === 0) return undefined;
  return {
    json: jsonBytes === 0 ? undefined : body.json,
    binary: body.binary,
    bytes: received,
  };
}
