// Bodies of requests on the wire: memory that the socket reads into and the run takes, used again.
import { allocate } from '../../runtime/lease.js';
import type { RequestHead } from './request-head.js';

/** Tensors of so many bytes are worth a lease: the run then takes them as they are. */
const LEASE_FROM_BYTES = 16 * 1024;
/** Leases kept for the next bodies, together. */
const MAX_SPARE_BYTES = 64 << 20;

/** A request's body on its way in. */
export class Body {
  readonly json: Buffer;
  readonly binary: Uint8Array;
  #filled = 0;

  /** @throws OverloadError when the arena is full */
  constructor({ jsonBytes, bytes }: RequestHead, spares: Spares) {
    this.json = Buffer.allocUnsafe(jsonBytes);
    const rest = bytes - jsonBytes;
    this.binary = rest >= LEASE_FROM_BYTES ? spares.take(rest) : Buffer.allocUnsafe(rest);
  }

  get missing(): number {
    return this.json.length + this.binary.length - this.#filled;
  }

  /** Where the next bytes may be read to; undefined for a few that are better copied. */
  place(): Uint8Array | undefined {
    const { json, binary } = this;
    if (this.#filled >= json.length) return binary.subarray(this.#filled - json.length);
    return binary.length === 0 ? json.subarray(this.#filled) : undefined;
  }

  /** So many more bytes were read to place(). */
  filled(bytes: number): void {
    this.#filled += bytes;
  }

  /** Copies what is missing at most; how much that was. */
  add(chunk: Buffer): number {
    const taken = Math.min(chunk.length, this.missing);
    const inJson = Math.min(taken, Math.max(0, this.json.length - this.#filled));
    if (inJson > 0) chunk.copy(this.json, this.#filled, 0, inJson);
    if (taken > inJson) {
      const part = inJson === 0 && taken === chunk.length ? chunk : chunk.subarray(inJson, taken);
      this.binary.set(part, this.#filled + inJson - this.json.length);
    }
    this.#filled += taken;
    return taken;
  }
}

/**
 * Leases of bodies that were answered, for the next of the same length. V8 collects all garbage each time
 * some 64 MB came from outside its heap: 100 images of 600 kB a second cost 6 % of two processors that way.
 */
export class Spares {
  #bytes = 0;
  readonly #bySize = new Map<number, Uint8Array[]>();

  /** @throws OverloadError when the arena is full */
  take(size: number): Uint8Array {
    const spare = this.#bySize.get(size)?.pop();
    if (spare) {
      this.#bytes -= size;
      return spare;
    }
    try {
      return allocate('uint8', [size]).data as Uint8Array;
    } catch (error) {
      this.clear(); // what others need is not kept
      throw error;
    }
  }

  /** Nobody else may read or write it any more. */
  give(body: Uint8Array): void {
    const size = body.length;
    if (size < LEASE_FROM_BYTES || this.#bytes + size > MAX_SPARE_BYTES) return;
    this.#bytes += size;
    const others = this.#bySize.get(size);
    if (others) others.push(body);
    else this.#bySize.set(size, [body]);
  }

  clear(): void {
    this.#bytes = 0;
    this.#bySize.clear();
  }
}
