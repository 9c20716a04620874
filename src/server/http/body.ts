// Gathers a request's body: the JSON part, and the tensors behind it straight into the arena.
import type { Readable } from 'node:stream';
import type { FastifyRequest } from 'fastify';
import { parseCarved, type CarvedJson } from '../../runtime/json-carve.js';
import { allocate, LEASE_FROM_BYTES } from '../../runtime/lease.js';
import { InvalidInputError } from '../../errors.js';
import { HttpError } from '../../serving/errors.js';
import { HEADER_LENGTH } from './request-head.js';

/** A body as the codec wants it. */
export interface InferBody {
  /** Undefined for a raw request, which is all binary. */
  json: CarvedJson | undefined;
  binary: Uint8Array;
}

/** The JSON part's length; undefined when the body is JSON only. */
function headerLength(request: FastifyRequest): number | undefined {
  const text = request.headers[HEADER_LENGTH];
  if (text === undefined) return undefined;
  const length = Number(text);
  if (typeof text !== 'string' || !/^[0-9]+$/.test(text) || !Number.isSafeInteger(length)) {
    throw new InvalidInputError(
      `Inference-Header-Content-Length: expected a number, got "${String(text)}"`,
    );
  }
  return length;
}

/** Fills one span of known length, or collects chunks where it is not known. */
class Gatherer {
  readonly #span: Uint8Array | undefined;
  readonly #chunks: Uint8Array[] = [];
  #filled = 0;

  constructor(expected: number | undefined) {
    if (expected !== undefined && expected >= LEASE_FROM_BYTES) {
      this.#span = allocate('uint8', [expected]).data as Uint8Array;
    }
  }

  add(chunk: Uint8Array): void {
    if (this.#span) {
      this.#span.set(chunk.subarray(0, this.#span.length - this.#filled), this.#filled);
    } else {
      this.#chunks.push(chunk);
    }
    this.#filled += chunk.length;
  }

  take(): Uint8Array {
    if (this.#span) return this.#span.subarray(0, this.#filled);
    return this.#chunks.length === 1 ? this.#chunks[0]! : Buffer.concat(this.#chunks);
  }
}

/**
 * Reads an infer request's body; undefined when there is none.
 *
 * @param parse how the JSON is read
 * @throws InvalidInputError (400) for a header out of range or JSON that does not parse; HttpError (413)
 *   for more than `limit` bytes
 */
export async function readInferBody(
  request: FastifyRequest,
  payload: Readable,
  limit: number,
  parse: (text: Uint8Array) => CarvedJson = parseCarved,
): Promise<InferBody | undefined> {
  const jsonBytes = headerLength(request);
  const encoded = request.headers['content-encoding'] !== undefined;
  const declared = encoded ? undefined : Number(request.headers['content-length'] ?? NaN);
  const total = Number.isSafeInteger(declared) ? declared : undefined;
  const tooLarge = (): HttpError =>
    new HttpError(413, `the body is larger than the limit of ${limit} bytes`);
  if (total !== undefined && total > limit) throw tooLarge();
  if (jsonBytes !== undefined && total !== undefined && jsonBytes > total) {
    throw new InvalidInputError(
      `Inference-Header-Content-Length: ${jsonBytes} is more than the body's ${total} bytes`,
    );
  }

  const split = jsonBytes ?? Infinity;
  const head = new Gatherer(undefined);
  const tail = new Gatherer(
    jsonBytes !== undefined && total !== undefined ? total - jsonBytes : undefined,
  );
  let received = 0;
  for await (const chunk of payload as AsyncIterable<Uint8Array>) {
    const inHead = Math.min(chunk.length, Math.max(0, split - received));
    if (inHead > 0) head.add(inHead === chunk.length ? chunk : chunk.subarray(0, inHead));
    if (inHead < chunk.length) tail.add(inHead === 0 ? chunk : chunk.subarray(inHead));
    received += chunk.length;
    if (received > limit) throw tooLarge();
  }
  if (jsonBytes !== undefined && received < jsonBytes) {
    throw new InvalidInputError(
      `Inference-Header-Content-Length: ${jsonBytes} is more than the body's ${received} bytes`,
    );
  }
  if (received === 0) return undefined;
  if (jsonBytes === 0) return { json: undefined, binary: tail.take() };
  return { json: parse(head.take()), binary: tail.take() };
}
