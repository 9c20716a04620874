// A connection of the wire: infer requests in, answers out.
import { STATUS_CODES } from 'node:http';
import type { Socket } from 'node:net';
import type { PlannedResponse } from '../../protocol/v2/plan.js';
import type { LeasePool } from '../../runtime/lease.js';
import { answerFor } from '../../serving/errors.js';
import { cancel, type Reply, type Running } from '../../serving/exchange.js';
import type { Target } from '../../serving/targets.js';
import { HEADER_LENGTH, type RequestHead } from './request-head.js';
import { readInto, scratch, type Reader } from './socket-reads.js';
import { WireBody } from './wire-body.js';

/** Longer answers go to the socket piece by piece instead of being joined first. */
const JOIN_UP_TO_BYTES = 64 * 1024;

const END_OF_HEAD = Buffer.from('\r\n\r\n');

/** A request's head, and the model that it asks. */
export interface RoutedHead {
  readonly head: RequestHead;
  readonly target: Target;
}

/** What connections need of the wire that they are on. */
export interface ConnectionHost {
  /** Sweeps so far: a clock that costs nothing to read. */
  readonly now: number;
  /** Ends connections after their next answer. */
  readonly closing: boolean;
  readonly leases: LeasePool;
  /** What a head asks for; undefined when that is not for the wire. */
  route(head: string): RoutedHead | undefined;
  start(target: Target, json: Buffer, binary: Uint8Array, reply: Reply): Running | undefined;
  /** The headers that let a connection live on, and the end of the head. */
  keepAlive(): string;
  /** Gives the socket to Node's HTTP server. */
  handOver(connection: Connection, socket: Socket): void;
  forget(connection: Connection): void;
}

let dateText = '';

/** The Date header's value, renewed every second. */
function date(): string {
  if (dateText === '') {
    const now = new Date();
    dateText = now.toUTCString();
    setTimeout(() => (dateText = ''), 1000 - now.getMilliseconds()).unref();
  }
  return dateText;
}

/** One connection, with one request at a time: what comes after it waits. */
export class Connection implements Reply, Reader {
  /** When the last request began, or was answered, or the connection began. */
  since: number;
  readonly #host: ConnectionHost;
  readonly #socket: Socket;
  #routed: RoutedHead | undefined;
  #body: WireBody | undefined;
  #busy = false;
  #running: Running | undefined;
  /** Of the request that runs, where it has a body of its own. */
  #binary: Uint8Array | undefined;
  /** Came while a request was being answered. */
  #pending: Buffer | undefined;
  /** Whether reads come to read() and go where place() says; else they come as 'data'. */
  readonly #owns: boolean;
  /** Whose reads these are; 'nobody' when no more is to be answered. */
  #reader: 'wire' | 'http' | 'nobody' = 'wire';

  constructor(host: ConnectionHost, socket: Socket) {
    this.#host = host;
    this.#socket = socket;
    this.since = host.now;
    this.#owns = readInto(socket, this);
    if (!this.#owns) socket.on('data', this.#onData);
    socket.on('end', this.end); // as Node's: who ends before the answer has gone away
    socket.on('close', this.#onClose);
    socket.on('error', ignore);
  }

  /** Whether it waits for a request to begin. */
  get idle(): boolean {
    return !this.#busy && !this.receiving;
  }

  /** Whether it waits for the rest of one. */
  get receiving(): boolean {
    return this.#body !== undefined;
  }

  /** Sends what is written, and no more; the second time it does not wait for the client either. */
  readonly end = (): void => {
    if (this.#socket.writableEnded) {
      this.#socket.destroy();
      return;
    }
    this.#pending = undefined;
    this.#reader = 'nobody';
    this.#socket.off('data', this.#onData);
    this.#socket.resume(); // what comes still is nobody's
    this.#socket.destroySoon();
  };

  place(): Uint8Array {
    return (this.#reader === 'wire' && this.#body?.place()) || scratch;
  }

  read(bytes: number, buffer: Uint8Array): boolean {
    if (this.#reader === 'wire') {
      const body = this.#body;
      if (buffer === scratch) {
        this.#onData(scratch.subarray(0, bytes));
      } else if (body) {
        body.filled(bytes);
        if (body.missing === 0) this.#filled(body);
      }
      return true;
    }
    if (this.#reader === 'nobody') return true;
    return this.#socket.push(Buffer.from(buffer.subarray(0, bytes)));
  }

  /** @param chunk in the scratch buffer, perhaps: what is needed later is copied */
  readonly #onData = (chunk: Buffer): void => {
    if (this.#busy) {
      this.#pending = this.#pending ? Buffer.concat([this.#pending, chunk]) : Buffer.from(chunk);
      this.#socket.pause();
    } else if (this.#body) {
      this.#fill(this.#body, chunk);
    } else {
      this.#begin(chunk);
    }
  };

  #begin(chunk: Buffer): void {
    this.since = this.#host.now;
    const headBytes = chunk.indexOf(END_OF_HEAD);
    const routed =
      headBytes > 0 ? this.#host.route(chunk.toString('latin1', 0, headBytes)) : undefined;
    if (!routed) {
      this.#handOver(chunk);
      return;
    }
    const { jsonBytes, bytes } = routed.head;
    const start = headBytes + END_OF_HEAD.length;
    const end = start + bytes;
    if (end > chunk.length) {
      let body: WireBody;
      try {
        body = new WireBody(routed.head, this.#host.leases);
      } catch {
        this.#handOver(chunk); // to be told what is wrong as everybody is
        return;
      }
      this.#routed = routed;
      this.#body = body;
      body.add(chunk.subarray(start));
      return;
    }
    this.#routed = routed;
    if (end < chunk.length) this.#pending = Buffer.from(chunk.subarray(end));
    // What is not in a lease is copied by whoever starts the run.
    this.#start(chunk.subarray(start, start + jsonBytes), chunk.subarray(start + jsonBytes, end));
  }

  #fill(body: WireBody, chunk: Buffer): void {
    const taken = body.add(chunk);
    if (body.missing > 0) return;
    if (taken < chunk.length) this.#pending = Buffer.from(chunk.subarray(taken));
    this.#filled(body);
  }

  #filled(body: WireBody): void {
    this.#body = undefined;
    this.#binary = body.binary;
    this.#start(body.json, body.binary);
  }

  #start(json: Buffer, binary: Uint8Array): void {
    this.#busy = true;
    const running = this.#host.start(this.#routed!.target, json, binary, this);
    // Unless it is over by now, and with it the request.
    if (this.#busy) this.#running = running;
  }

  answer({ head, binary }: PlannedResponse): void {
    if (this.#isGone()) return;
    let bytes = head.length;
    for (const part of binary) bytes += part.length;
    const tensors =
      binary.length > 0
        ? `application/octet-stream\r\n${HEADER_LENGTH}: ${head.length}`
        : 'application/json; charset=utf-8';
    const status = `HTTP/1.1 200 OK\r\ncontent-type: ${tensors}${this.#commonHeaders(bytes)}`;
    const socket = this.#socket;
    if (bytes <= JOIN_UP_TO_BYTES) {
      const whole = Buffer.allocUnsafe(status.length + bytes);
      let at = whole.write(status, 'latin1');
      at += head.copy(whole, at);
      for (const part of binary) {
        whole.set(part, at);
        at += part.length;
      }
      socket.write(whole);
    } else {
      socket.cork();
      socket.write(status, 'latin1');
      socket.write(head);
      for (const part of binary) socket.write(part);
      socket.uncork();
    }
    // The run is over, and so is the answer, which may lie in the same memory.
    if (this.#binary && socket.writableLength === 0) this.#host.leases.give(this.#binary);
    this.#next();
  }

  fail(error: unknown): void {
    if (this.#isGone()) return;
    const { status, message } = answerFor(error);
    const body = JSON.stringify({ error: message });
    this.#socket.write(
      `HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\ncontent-type: application/json; charset=utf-8` +
        this.#commonHeaders(Buffer.byteLength(body)) +
        body,
    );
    this.#next();
  }

  #isGone(): boolean {
    this.#running = undefined;
    return this.#socket.destroyed;
  }

  #commonHeaders(bytes: number): string {
    return `\r\ncontent-length: ${bytes}\r\nDate: ${date()}\r\n${this.#stays() ? this.#host.keepAlive() : 'Connection: close\r\n\r\n'}`;
  }

  #stays(): boolean {
    return this.#routed!.head.keepAlive && !this.#host.closing;
  }

  /** A request was answered: what of the next? */
  #next(): void {
    const stays = this.#stays();
    const socket = this.#socket;
    this.#routed = undefined;
    this.#binary = undefined;
    if (!stays) {
      this.#busy = false;
      this.end();
    } else if (socket.writableNeedDrain) {
      socket.once('drain', this.#goOn); // the client shall read before it asks for more
    } else if (this.#pending) {
      setImmediate(this.#goOn);
    } else {
      this.#busy = false;
      this.since = this.#host.now; // the client has its time from the answer on
    }
  }

  readonly #goOn = (): void => {
    if (this.#socket.writableEnded) return;
    this.#busy = false;
    this.since = this.#host.now;
    if (this.#host.closing) {
      this.end();
      return;
    }
    const pending = this.#pending;
    this.#pending = undefined;
    if (this.#socket.destroyed) return;
    // First, so that a connection that is handed over is not paused.
    if (pending) {
      this.#socket.resume();
      this.#begin(pending);
    }
  };

  /** Node's HTTP server takes it from here. */
  #handOver(bytes: Buffer): void {
    const socket = this.#socket;
    socket.pause();
    this.#reader = 'http';
    socket.off('data', this.#onData);
    socket.off('end', this.end);
    socket.off('close', this.#onClose);
    socket.off('error', ignore);
    socket.unshift(this.#owns ? Buffer.from(bytes) : bytes);
    this.#host.handOver(this, socket);
    socket.resume();
  }

  readonly #onClose = (): void => {
    this.#host.forget(this);
    if (this.#running) cancel(this.#running);
  };
}

function ignore(): void {
  // The socket closes after an error, and that is all there is to know.
}
