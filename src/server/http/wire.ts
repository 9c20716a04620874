// The wire: connections on which only infer requests come, without Node's HTTP layer in between.
//
// For a request of 4 kB that layer (parser, IncomingMessage, ServerResponse, writev) costs three times
// what the rest of the path does: 75 us of 95 (bench/http.ts, one processor). So a connection starts here,
// and each request's head is read strictly (request-head.ts). At the first that is anything else, Node's
// HTTP server gets the connection, with every byte that was not answered yet, and keeps it.
import diagnostics from 'node:diagnostics_channel';
import { Server as HttpServer, STATUS_CODES } from 'node:http';
import { Socket, type Server } from 'node:net';
import { LATER_FROM_BYTES } from '../../runtime/json-carve.js';
import type { PlannedResponse } from '../../protocol/v2/plan.js';
import type { Arrivals } from '../../serving/burst.js';
import { Body, Spares } from './wire-body.js';
import { answerFor } from '../../serving/errors.js';
import {
  cancel,
  type HotInfer,
  type Reply,
  type Running,
  type Target,
} from '../../serving/exchange.js';
import { readInto, scratch, type Reader } from './socket-reads.js';
import { HEADER_LENGTH, readRequestHead, type RequestHead } from './request-head.js';

/** Node's default for all headers together. */
const MAX_HEAD_BYTES = 16 * 1024;
/** As many heads are remembered; clients send the same ones over and over. */
const MAX_HEADS = 256;
const MAX_KEPT_HEAD_BYTES = 1024;
/** Longer answers go to the socket piece by piece instead of being joined first. */
const JOIN_UP_TO_BYTES = 64 * 1024;
const SWEEP_MS = 5000;

const END_OF_HEAD = Buffer.from('\r\n\r\n');

/** A head, and what it asks for. */
interface Wanted {
  readonly head: RequestHead;
  readonly target: Target;
}

type ConnectionListener = (this: Server, socket: Socket) => void;

/** Tools that trace requests patch Node's HTTP server or subscribe to it; they shall see every one. */
function isTraced(): boolean {
  return (
    Object.hasOwn(HttpServer.prototype, 'emit') ||
    diagnostics.hasSubscribers('http.server.request.start')
  );
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

/** One connection, with one request at a time: what comes behind it waits. */
class Connection implements Reply, Reader {
  /** When the last request began, or was answered, or the connection began. */
  since: number;
  readonly #wire: Wire;
  readonly #socket: Socket;
  #wanted: Wanted | undefined;
  #body: Body | undefined;
  #busy = false;
  #running: Running | undefined;
  /** Of the request that runs, where it has a body of its own. */
  #binary: Uint8Array | undefined;
  /** Came while a request was being answered. */
  #behind: Buffer | undefined;
  /** Whether reads come to read() and go where place() says; else they come as 'data'. */
  readonly #owns: boolean;
  /** Whose reads these are; 'nobody' when no more is to be answered. */
  #reader: 'wire' | 'http' | 'nobody' = 'wire';

  constructor(wire: Wire, socket: Socket) {
    this.#wire = wire;
    this.#socket = socket;
    this.since = wire.now;
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
    this.#behind = undefined;
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
      this.#behind = this.#behind ? Buffer.concat([this.#behind, chunk]) : Buffer.from(chunk);
      this.#socket.pause();
    } else if (this.#body) {
      this.#fill(this.#body, chunk);
    } else {
      this.#begin(chunk);
    }
  };

  #begin(chunk: Buffer): void {
    this.since = this.#wire.now;
    const headBytes = chunk.indexOf(END_OF_HEAD);
    const wanted =
      headBytes > 0 ? this.#wire.want(chunk.toString('latin1', 0, headBytes)) : undefined;
    if (!wanted) {
      this.#handOver(chunk);
      return;
    }
    const { jsonBytes, bytes } = wanted.head;
    const start = headBytes + END_OF_HEAD.length;
    const end = start + bytes;
    if (end > chunk.length) {
      let body: Body;
      try {
        body = new Body(wanted.head, this.#wire.spares);
      } catch {
        this.#handOver(chunk); // to be told what is wrong as everybody is
        return;
      }
      this.#wanted = wanted;
      this.#body = body;
      body.add(chunk.subarray(start));
      return;
    }
    this.#wanted = wanted;
    if (end < chunk.length) this.#behind = Buffer.from(chunk.subarray(end));
    // What is not in a lease is copied by whoever starts the run.
    this.#start(chunk.subarray(start, start + jsonBytes), chunk.subarray(start + jsonBytes, end));
  }

  #fill(body: Body, chunk: Buffer): void {
    const taken = body.add(chunk);
    if (body.missing > 0) return;
    if (taken < chunk.length) this.#behind = Buffer.from(chunk.subarray(taken));
    this.#filled(body);
  }

  #filled(body: Body): void {
    this.#body = undefined;
    this.#binary = body.binary;
    this.#start(body.json, body.binary);
  }

  #start(json: Buffer, binary: Uint8Array): void {
    this.#busy = true;
    const running = this.#wire.start(this.#wanted!.target, json, binary, this);
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
    if (this.#binary && socket.writableLength === 0) this.#wire.spares.give(this.#binary);
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
    return `\r\ncontent-length: ${bytes}\r\nDate: ${date()}\r\n${this.#stays() ? this.#wire.keepAlive() : 'Connection: close\r\n\r\n'}`;
  }

  #stays(): boolean {
    return this.#wanted!.head.keepAlive && !this.#wire.closing;
  }

  /** A request was answered: what of the next? */
  #next(): void {
    const stays = this.#stays();
    const socket = this.#socket;
    this.#wanted = undefined;
    this.#binary = undefined;
    if (!stays) {
      this.#busy = false;
      this.end();
    } else if (socket.writableNeedDrain) {
      socket.once('drain', this.#goOn); // the client shall read before it asks for more
    } else if (this.#behind) {
      setImmediate(this.#goOn);
    } else {
      this.#busy = false;
      this.since = this.#wire.now; // the client has its time from the answer on
    }
  }

  readonly #goOn = (): void => {
    if (this.#socket.writableEnded) return;
    this.#busy = false;
    this.since = this.#wire.now;
    if (this.#wire.closing) {
      this.end();
      return;
    }
    const behind = this.#behind;
    this.#behind = undefined;
    if (this.#socket.destroyed) return;
    // First, so that a connection that is handed over is not paused.
    if (behind) {
      this.#socket.resume();
      this.#begin(behind);
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
    this.#wire.handOver(this, socket);
    socket.resume();
  }

  readonly #onClose = (): void => {
    this.#wire.forget(this);
    if (this.#running) cancel(this.#running);
  };
}

function ignore(): void {
  // The socket closes after an error, and that is all there is to know.
}

export class Wire {
  /** Ends connections after their next answer. */
  closing = false;
  readonly #infer: HotInfer;
  readonly #arrivals: Arrivals;
  readonly #maxBodyBytes: number;
  readonly #server: HttpServer;
  readonly #requestListeners: number;
  readonly #toHttp: ConnectionListener;
  readonly #heads = new Map<string, Wanted>();
  readonly #connections = new Set<Connection>();
  /** Handed over, but no request has come of it yet. */
  readonly #unused = new Set<Socket>();
  readonly spares = new Spares();
  #sweeping: NodeJS.Timeout | undefined;
  #now = 0;
  #keepAlive = '';
  #keepAliveTimeout = -1;

  /**
   * Goes in front of an HTTP server.
   *
   * @param server fresh from createServer(): its own connection listener is the only one
   */
  constructor(server: HttpServer, infer: HotInfer, arrivals: Arrivals, bodyLimitBytes: number) {
    this.#server = server;
    this.#infer = infer;
    this.#arrivals = arrivals;
    this.#maxBodyBytes = bodyLimitBytes;
    this.#toHttp = server.listeners('connection')[0] as ConnectionListener;
    server.removeAllListeners('connection');
    server.on('connection', (socket: Socket) => {
      // Programs may emit connections of their own making.
      if (!(socket instanceof Socket)) this.#toHttp.call(server, socket);
      else this.#take(socket);
    });
    server.on('request', (request) => this.#unused.delete(request.socket));
    this.#requestListeners = server.listenerCount('request');
  }

  /** Sweeps so far: a clock that costs nothing to read. */
  get now(): number {
    return this.#now;
  }

  /** The headers that let a connection live on, and the end of the head. */
  keepAlive(): string {
    const { keepAliveTimeout } = this.#server;
    if (keepAliveTimeout !== this.#keepAliveTimeout) {
      this.#keepAliveTimeout = keepAliveTimeout;
      const hint = `Keep-Alive: timeout=${Math.floor(keepAliveTimeout / 1000)}\r\n`;
      this.#keepAlive = `Connection: keep-alive\r\n${keepAliveTimeout > 0 ? hint : ''}\r\n`;
    }
    return this.#keepAlive;
  }

  /**
   * Ends what waits for a request. Node's close() would wait a minute for connections that clients opened
   * in advance and never used.
   */
  close(): void {
    this.closing = true;
    for (const connection of this.#connections) if (connection.idle) connection.end();
    for (const socket of this.#unused) socket.destroy();
  }

  #take(socket: Socket): void {
    if (this.closing) {
      socket.destroy(); // nobody would end it any more
      return;
    }
    const isSeenByOthers = this.#server.listenerCount('request') > this.#requestListeners;
    if (!this.#infer.enabled || isSeenByOthers || isTraced()) {
      this.#give(socket);
      return;
    }
    this.#connections.add(new Connection(this, socket));
    this.#sweeping ??= setInterval(() => this.#sweep(), SWEEP_MS).unref();
  }

  /** What a head asks for; undefined when that is not for here. */
  want(text: string): Wanted | undefined {
    if (!this.#infer.enabled || text.length > MAX_HEAD_BYTES) return undefined;
    let wanted = this.#heads.get(text);
    if (!wanted) {
      const head = readRequestHead(text);
      const target = head && head.bytes <= this.#maxBodyBytes && this.#infer.target(head.url);
      // Long JSON is read elsewhere meanwhile, which the routes can wait for.
      if (!target || head.jsonBytes >= LATER_FROM_BYTES) return undefined;
      wanted = { head, target };
      if (text.length <= MAX_KEPT_HEAD_BYTES) {
        if (this.#heads.size >= MAX_HEADS) this.#heads.clear();
        this.#heads.set(text, wanted);
      }
    }
    return this.#infer.serves(wanted.target) ? wanted : undefined;
  }

  start(target: Target, json: Buffer, binary: Uint8Array, reply: Reply): Running | undefined {
    return this.#infer.start(target, json, binary, this.#arrivals.count(), reply);
  }

  handOver(connection: Connection, socket: Socket): void {
    this.forget(connection);
    this.#give(socket);
  }

  #give(socket: Socket): void {
    this.#unused.add(socket);
    socket.once('close', () => this.#unused.delete(socket));
    this.#toHttp.call(this.#server, socket);
  }

  forget(connection: Connection): void {
    this.#connections.delete(connection);
    if (this.#connections.size > 0) return;
    clearInterval(this.#sweeping);
    this.#sweeping = undefined;
    this.spares.clear();
  }

  /** Connections that nobody uses end as Node's would. */
  #sweep(): void {
    this.#now++;
    this.spares.clear(); // what is in use comes back
    const { keepAliveTimeout, requestTimeout } = this.#server;
    for (const connection of this.#connections) {
      const limit = connection.idle ? keepAliveTimeout : connection.receiving ? requestTimeout : 0;
      if (limit > 0 && (this.#now - connection.since) * SWEEP_MS > limit) connection.end();
    }
  }
}
