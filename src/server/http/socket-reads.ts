// Sockets that read into memory of ours.
//
// For each read Node allocates 64 KB and makes an ArrayBuffer of what came. 100 images of 600 kB a second
// are 60 MB a second of those, copied once more into the body, and V8 collects all garbage twice a second
// for them. A socket that a program makes may bring its own buffers (`onread` of net.Socket); those that a
// server accepts may not, though they are the same. So the properties that `onread` sets are looked up on a
// socket made for it, and set on the accepted one. Where they are not found, Node reads as ever.
import { Socket, type SocketConstructorOpts } from 'node:net';

/** As much as Node reads at once. */
const READ_BYTES = 64 * 1024;

/**
 * Where reads go that nobody has a better place for: valid until the reader returns. One for all sockets of
 * a thread: each read is handed on before the next begins.
 */
export const scratch = Buffer.allocUnsafeSlow(READ_BYTES);

export interface Reader {
  /**
   * Takes what was read.
   *
   * @param buffer the scratch buffer, or what place() gave, the bytes at its start
   * @returns whether to go on reading
   */
  read(bytes: number, buffer: Uint8Array): boolean;
  /** Where the next read shall go: the scratch buffer, or memory that nobody else uses. */
  place(): Uint8Array;
}

interface Keys {
  buffer: symbol;
  callback: symbol;
  generator: symbol;
}

type Properties = Record<symbol, unknown>;

function keyOf(socket: Socket, value: unknown): symbol | undefined {
  return Object.getOwnPropertySymbols(socket).find(
    (key) => (socket as unknown as Properties)[key] === value,
  );
}

/** What `onread` sets. */
function findKeys(): Keys | undefined {
  // There the system is given the buffer before the bytes are there, and one cannot do for all.
  if (process.platform === 'win32') return undefined;
  const place = (): Uint8Array => scratch;
  const read = (): boolean => true;
  const make = (buffer: Buffer | typeof place): Socket =>
    new Socket({ onread: { buffer, callback: read } } as SocketConstructorOpts);
  const fixed = make(scratch);
  const placed = make(place);
  const buffer = keyOf(fixed, scratch);
  const callback = keyOf(fixed, read);
  const generator = keyOf(placed, place);
  if (!buffer || !callback || !generator || keyOf(placed, read) !== callback) return undefined;
  return { buffer, callback, generator };
}

let keys: Keys | null | undefined;

/**
 * Gives all that a socket reads from now on to a reader, instead of its 'data' event.
 *
 * @returns false where this Node cannot, or somebody has begun to read: nothing was changed
 */
export function readInto(socket: Socket, reader: Reader): boolean {
  if (keys === undefined) keys = findKeys() ?? null;
  const handle = (socket as unknown as { _handle?: { useUserBuffer?(buffer: Uint8Array): void } })
    ._handle;
  if (!keys || typeof handle?.useUserBuffer !== 'function') return false;
  // What Node has read already comes as 'data'.
  const isFresh = socket.bytesRead === 0 && socket.readableFlowing === null;
  if (!isFresh || socket.readableLength > 0) return false;
  const properties = socket as unknown as Properties;
  if (!(keys.buffer in socket && keys.callback in socket && keys.generator in socket)) return false;
  properties[keys.buffer] = scratch;
  properties[keys.generator] = () => reader.place();
  properties[keys.callback] = (bytes: number, buffer: Uint8Array) => reader.read(bytes, buffer);
  handle.useUserBuffer(scratch);
  return true;
}
