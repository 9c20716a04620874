// A connection of the wire: infer requests in, answers out.
import type { Socket } from 'node:net';
import type { RestCodec } from '../../protocol/v2/rest-codec.js';
import type { LeasePool } from '../../runtime/lease.js';
import type { ExchangeContext } from '../../serving/exchange.js';
import type { Peer } from '../../serving/peer.js';
import { headOf, JOIN_UP_TO_BYTES, type HttpAnswer } from './answer.js';
import { Body } from './body.js';
import { SocketPeer } from './socket-peer.js';
import { readInto, scratch, type Reader } from './socket-reads.js';
import { WireExchange, type RoutedHead } from './wire-exchange.js';

const END_OF_HEAD = Buffer.from('\r\n\r\n');
/** How long a refused client may go on sending. */
const LINGER_MS = 1000;

/** What connections need of the wire that they are on. */
export interface ConnectionHost {
  readonly context: ExchangeContext;
  readonly codec: RestCodec;
  /** Sweeps so far: a clock that costs nothing to read. */
  readonly now: number;
  /** Ends connections after their next answer. */
  readonly closing: boolean;
  readonly leases: LeasePool;
  readonly maxBodyBytes: number;
  /** Whether this machine alone reaches the listener. */
  isLoopback(): boolean;
  /** What a head asks for; undefined when that is not for the wire. */
  route(head: string): RoutedHead | undefined;
  /** Whether heads that were routed still are. */
  routes(routed: RoutedHead): boolean;
  /** Counts a request. */
  began(): void;
  /** The headers that let a connection live on, and the end of the head. */
  keepAlive(): string;
  /** Gives the socket to Node's HTTP server. */
  handOver(connection: Connection, socket: Socket): void;
  forget(connection: Connection): void;
}

const CLOSES = 'Connection: close\r\n\r\n';

/** What the headers of this second end with, by what they say of the connection. */
const ends = new Map<string, string>();

/** The Date header, renewed every second, and what follows it. */
function endOfHead(connection: string): string {
  let end = ends.get(connection);
  if (end === undefined) {
    const now = new Date();
    end = `Date: ${now.toUTCString()}\r\n${connection}`;
    if (ends.size === 0) setTimeout(() => ends.clear(), 1000 - now.getMilliseconds()).unref();
    ends.set(connection, end);
  }
  return end;
}

/** One connection, with one request at a time: what comes after it waits. */
export class Connection implements Reader {
  /** When the last request began, or was answered, or the connection began. */
  since: number;
  readonly #host: ConnectionHost;
  readonly #socket: Socket;
  readonly #peer: Peer;
  /** Of the last request: the next one's is the same, mostly. */
  #routed: RoutedHead | undefined;
  /** Of the request that goes on. */
  #exchange: WireExchange | undefined;
  #body: Body | undefined;
  #busy = false;
  /** Bytes of the request's body are not here yet. */
  #unread = false;
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
    this.#peer = new SocketPeer(socket, host);
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
    let routed = this.#routed;
    let headBytes = -1;
    if (routed && this.#host.routes(routed)) headBytes = routed.pattern.match(chunk);
    if (headBytes < 0) {
      headBytes = chunk.indexOf(END_OF_HEAD) + END_OF_HEAD.length;
      const isWhole = headBytes > END_OF_HEAD.length;
      routed = isWhole
        ? this.#host.route(chunk.toString('latin1', 0, headBytes - END_OF_HEAD.length))
        : undefined;
      if (!routed || routed.pattern.match(chunk) < 0) {
        this.#handOver(chunk);
        return;
      }
      this.#routed = routed;
    }
    const values = routed!.pattern.values();
    const exchange = new WireExchange(this, this.#host, routed!, this.#peer, values);
    this.#host.began();
    this.#exchange = exchange;
    this.#busy = true;
    const end = headBytes + routed!.head.bytes;
    this.#unread = end > chunk.length;
    if (end < chunk.length) this.#pending = Buffer.from(chunk.subarray(end));
    const waiting = exchange.enter();
    if (exchange.settled) return; // refused
    const came = chunk.subarray(headBytes, end);
    if (!waiting) {
      this.#receive(exchange, came);
      return;
    }
    const held = Buffer.from(came);
    void waiting.then(() => {
      if (!exchange.settled) this.#receive(exchange, held);
    });
  }

  /** Takes what came of a request's body with its head. */
  #receive(exchange: WireExchange, came: Buffer): void {
    const { head } = exchange.routed;
    if (!this.#unread) {
      // What is not in a lease is copied by whoever starts the run.
      const { jsonBytes } = head;
      exchange.run(came.subarray(0, jsonBytes), came.subarray(jsonBytes));
      return;
    }
    let body: Body;
    try {
      body = new Body(head, this.#host.maxBodyBytes, this.#host.leases, true);
    } catch (error) {
      exchange.fail(error);
      return;
    }
    body.add(came);
    this.#body = body;
    this.#busy = false;
    // More of it came while an interceptor had the request wait.
    const pending = this.#pending;
    if (!pending) return;
    this.#pending = undefined;
    this.#socket.resume();
    this.#fill(body, pending);
  }

  #fill(body: Body, chunk: Buffer): void {
    const taken = body.add(chunk);
    if (body.missing > 0) return;
    if (taken < chunk.length) this.#pending = Buffer.from(chunk.subarray(taken));
    this.#filled(body);
  }

  #filled(body: Body): void {
    this.#body = undefined;
    this.#unread = false;
    this.#busy = true;
    this.#binary = body.binary;
    this.#exchange!.run(body.json, this.#binary);
  }

  /** Writes the answer to the request that goes on. */
  send(answer: HttpAnswer): void {
    const socket = this.#socket;
    if (socket.destroyed) return;
    const { status, parts, bytes } = answer;
    const head = headOf(answer, endOfHead(this.#stays() ? this.#host.keepAlive() : CLOSES));
    if (bytes <= JOIN_UP_TO_BYTES) {
      const whole = Buffer.allocUnsafe(head.length + bytes);
      let at = head.copy(whole);
      for (let i = 0; i < parts.length; i++) {
        whole.set(parts[i]!, at);
        at += parts[i]!.length;
      }
      socket.write(whole);
    } else {
      socket.cork();
      socket.write(head);
      for (const part of parts) socket.write(part);
      socket.uncork();
    }
    // The run is over, and so is the answer, which may lie in the same memory.
    const isOver = status === 200 && socket.writableLength === 0;
    if (this.#binary && isOver) this.#host.leases.give(this.#binary);
    this.#next();
  }

  #stays(): boolean {
    return !this.#unread && this.#routed!.head.keepAlive && !this.#host.closing;
  }

  /**
   * Ends a connection on which the client still sends: closed at once, the system would take back the answer
   * too (RFC 9112, 9.6).
   */
  #linger(): void {
    const socket = this.#socket;
    this.#pending = undefined;
    this.#reader = 'nobody';
    socket.off('data', this.#onData);
    socket.resume();
    socket.end();
    setTimeout(() => socket.destroy(), LINGER_MS).unref();
  }

  /** A request was answered: what of the next? */
  #next(): void {
    const stays = this.#stays();
    const socket = this.#socket;
    this.#exchange = undefined;
    this.#body = undefined;
    this.#binary = undefined;
    if (!stays) {
      this.#busy = false;
      if (this.#unread) this.#linger();
      else this.end();
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
    this.#exchange?.gone();
  };
}

function ignore(): void {
  // The socket closes after an error, and that is all there is to know.
}
