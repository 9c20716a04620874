// Shared memory of a client that is on the server's machine: tensors are written to it instead of being sent.
import { randomBytes } from 'node:crypto';
import { closeSync, constants, ftruncateSync, openSync, unlinkSync, writeSync } from 'node:fs';

/** Where shm_open() keeps its objects on Linux. */
const FOLDER = '/dev/shm';
/** Tensors begin at multiples of so many bytes, as runs like them. */
const ALIGNMENT = 64;

interface Span {
  offset: number;
  bytes: number;
}

/** One object, and the spans of it that requests hold. */
export class SharedRegion {
  readonly name = `tercel-client-${process.pid}-${randomBytes(6).toString('hex')}`;
  readonly bytes: number;
  readonly #file: number;
  /** Free spans, by their offset; neighbours are joined. */
  #free: Span[];
  #closed = false;
  #unlinked = false;

  /** Throws an error of the system's where there is no shared memory. */
  constructor(bytes: number) {
    this.bytes = bytes;
    this.#file = openSync(
      `${FOLDER}/${this.name}`,
      constants.O_RDWR | constants.O_CREAT | constants.O_EXCL,
      0o600,
    );
    ftruncateSync(this.#file, bytes);
    this.#free = [{ offset: 0, bytes }];
  }

  /** Writes bytes to a free span; its offset, or undefined where there is no room. */
  put(bytes: Uint8Array): number | undefined {
    const size = Math.ceil(bytes.length / ALIGNMENT) * ALIGNMENT;
    const index = this.#free.findIndex((span) => span.bytes >= size);
    if (index < 0 || this.#closed) return undefined;
    const span = this.#free[index]!;
    const { offset } = span;
    if (span.bytes === size) this.#free.splice(index, 1);
    else this.#free[index] = { offset: offset + size, bytes: span.bytes - size };
    try {
      for (let at = 0; at < bytes.length;) {
        at += writeSync(this.#file, bytes, at, bytes.length - at, offset + at);
      }
    } catch {
      // The system has less memory for it than it promised: what does not fit is sent.
      this.release(offset, bytes.length);
      return undefined;
    }
    return offset;
  }

  /** Gives a span of put() back. */
  release(offset: number, bytes: number): void {
    const size = Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;
    this.#free.push({ offset, bytes: size });
    this.#free.sort((a, b) => a.offset - b.offset);
    const joined: Span[] = [];
    for (const span of this.#free) {
      const last = joined.at(-1);
      if (last && last.offset + last.bytes === span.offset) last.bytes += span.bytes;
      else joined.push(span);
    }
    this.#free = joined;
  }

  /** Takes the name away: who has it mapped keeps it, and nothing is left behind when this process ends. */
  unlink(): void {
    if (this.#unlinked) return;
    this.#unlinked = true;
    unlinkSync(`${FOLDER}/${this.name}`);
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.unlink();
    closeSync(this.#file);
  }
}
