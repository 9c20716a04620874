// The wire: connections on which only infer requests come, without Node's HTTP layer in between.
//
// For a request of 4 kB that layer (parser, IncomingMessage, ServerResponse, writev) costs three times
// what the rest of the path does: 75 us of 95 (bench/http.ts, one processor). So a connection starts here,
// and each request's head is read strictly (request-head.ts). At the first that is anything else, Node's
// HTTP server gets the connection, with every byte that was not answered yet, and keeps it.
import diagnostics from 'node:diagnostics_channel';
import { Server as HttpServer } from 'node:http';
import { Socket, type Server } from 'node:net';
import { LATER_FROM_BYTES } from '../../runtime/json-carve.js';
import { LeasePool } from '../../runtime/lease.js';
import type { Burst } from '../../serving/burst.js';
import type { DirectInfer, Reply, Running } from '../../serving/exchange.js';
import type { Target } from '../../serving/targets.js';
import { Connection, type ConnectionHost, type RoutedHead } from './connection.js';
import { readRequestHead } from './request-head.js';

/** Node's default for all headers together. */
const MAX_HEAD_BYTES = 16 * 1024;
/** As many heads are remembered; clients send the same ones over and over. */
const MAX_HEADS = 256;
const MAX_KEPT_HEAD_BYTES = 1024;
const SWEEP_MS = 5000;

type ConnectionListener = (this: Server, socket: Socket) => void;

/** Tools that trace requests patch Node's HTTP server or subscribe to it; they shall see every one. */
function isTraced(): boolean {
  return (
    Object.hasOwn(HttpServer.prototype, 'emit') ||
    diagnostics.hasSubscribers('http.server.request.start')
  );
}

export class Wire implements ConnectionHost {
  /** Ends connections after their next answer. */
  closing = false;
  readonly #infer: DirectInfer;
  readonly #burst: Burst;
  readonly #maxBodyBytes: number;
  readonly #server: HttpServer;
  readonly #requestListeners: number;
  readonly #toHttp: ConnectionListener;
  readonly #heads = new Map<string, RoutedHead>();
  readonly #connections = new Set<Connection>();
  /** Handed over, but no request has come of it yet. */
  readonly #unused = new Set<Socket>();
  readonly leases = new LeasePool();
  #sweeping: NodeJS.Timeout | undefined;
  #now = 0;
  #keepAlive = '';
  #keepAliveTimeout = -1;

  /**
   * Goes in front of an HTTP server.
   *
   * @param server fresh from createServer(): its own connection listener is the only one
   */
  constructor(server: HttpServer, infer: DirectInfer, burst: Burst, bodyLimitBytes: number) {
    this.#server = server;
    this.#infer = infer;
    this.#burst = burst;
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
  route(text: string): RoutedHead | undefined {
    if (!this.#infer.enabled || text.length > MAX_HEAD_BYTES) return undefined;
    let routed = this.#heads.get(text);
    if (!routed) {
      const head = readRequestHead(text);
      const target = head && head.bytes <= this.#maxBodyBytes && this.#infer.target(head.url);
      // Long JSON is read elsewhere meanwhile, which the routes can wait for.
      if (!target || head.jsonBytes >= LATER_FROM_BYTES) return undefined;
      routed = { head, target };
      if (text.length <= MAX_KEPT_HEAD_BYTES) {
        if (this.#heads.size >= MAX_HEADS) this.#heads.clear();
        this.#heads.set(text, routed);
      }
    }
    return this.#infer.serves(routed.target) ? routed : undefined;
  }

  start(target: Target, json: Buffer, binary: Uint8Array, reply: Reply): Running | undefined {
    return this.#infer.start(target, json, binary, this.#burst.count(), reply);
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
    this.leases.clear();
  }

  /** Connections that nobody uses end as Node's would. */
  #sweep(): void {
    this.#now++;
    this.leases.clear(); // what is in use comes back
    const { keepAliveTimeout, requestTimeout } = this.#server;
    for (const connection of this.#connections) {
      const limit = connection.idle ? keepAliveTimeout : connection.receiving ? requestTimeout : 0;
      if (limit > 0 && (this.#now - connection.since) * SWEEP_MS > limit) connection.end();
    }
  }
}
