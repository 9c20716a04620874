// A request's body on the wire: memory that the socket reads into and the run takes.
import { LEASE_FROM_BYTES, type LeasePool } from '../../runtime/lease.js';
import type { RequestHead } from './request-head.js';

/** A request's body on its way in. */
export class WireBody {
  readonly json: Buffer;
  readonly binary: Uint8Array;
  #filled = 0;

  /** @throws OverloadError when the arena is full */
  constructor({ jsonBytes, bytes }: RequestHead, pool: LeasePool) {
    this.json = Buffer.allocUnsafe(jsonBytes);
    const rest = bytes - jsonBytes;
    this.binary = rest >= LEASE_FROM_BYTES ? pool.take(rest) : Buffer.allocUnsafe(rest);
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
