// The wire: connections on which only infer requests come, without Node's HTTP layer in between.
//
// For a request of 4 kB that layer (parser, IncomingMessage, ServerResponse, writev) costs three times
// what the rest of the path does: 75 us of 95 (bench/http.ts, one processor). So a connection starts here,
// and each request's head is read strictly (request-head.ts). At the first that is anything else, Node's
// HTTP server gets the connection, with every byte that was not answered yet, and keeps it.
import diagnostics from 'node:diagnostics_channel';
import { Server as HttpServer } from 'node:http';
import { Socket, type Server } from 'node:net';
import { Server as TlsServer } from 'node:tls';
import { BoundedMap } from '../../protocol/bounded-map.js';
import { isReadLater, type RestCodec } from '../../protocol/v2/rest-codec.js';
import { LeasePool } from '../../runtime/lease.js';
import type { ExchangeContext } from '../../serving/exchange.js';
import { Connection, type ConnectionHost } from './connection.js';
import type { FastPath } from './fast-path.js';
import { HeadPattern } from './head-pattern.js';
import { readRequestHead } from './request-head.js';
import type { RoutedHead } from './wire-exchange.js';

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
  readonly context: ExchangeContext;
  readonly codec: RestCodec;
  readonly maxBodyBytes: number;
  readonly #path: FastPath;
  readonly #server: HttpServer;
  readonly #requestListeners: number;
  readonly #toHttp: ConnectionListener;
  #heads = new BoundedMap<RoutedHead>(MAX_HEADS);
  /** What interceptors read of the heads that are remembered. */
  #headerNames: readonly string[] | undefined;
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
   * @param server fresh from createServer(), of node:http or node:https: its own connection listener is the
   *   only one
   */
  constructor(server: HttpServer, path: FastPath, bodyLimitBytes: number) {
    this.#server = server;
    this.#path = path;
    this.context = path.context;
    this.codec = path.codec;
    this.maxBodyBytes = bodyLimitBytes;
    const event = server instanceof TlsServer ? 'secureConnection' : 'connection';
    this.#toHttp = server.listeners(event)[0] as ConnectionListener;
    server.removeListener(event, this.#toHttp);
    server.on(event, (socket: Socket) => {
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
    if (!this.#path.enabled || isSeenByOthers || isTraced()) {
      this.#give(socket);
      return;
    }
    this.#connections.add(new Connection(this, socket));
    this.#sweeping ??= setInterval(() => this.#sweep(), SWEEP_MS).unref();
  }

  route(text: string): RoutedHead | undefined {
    if (!this.#path.enabled || text.length > MAX_HEAD_BYTES) return undefined;
    const { headerNames } = this.context.front.hooks('infer');
    if (headerNames !== this.#headerNames) {
      this.#headerNames = headerNames;
      this.#heads = new BoundedMap<RoutedHead>(MAX_HEADS);
    }
    const known = this.#heads.get(text);
    if (known) return known;
    const head = readRequestHead(text, headerNames);
    const target = head && head.bytes <= this.maxBodyBytes && this.#path.target(head.url);
    // Long JSON is read elsewhere meanwhile, which the routes can wait for.
    if (!target || isReadLater(head.jsonBytes)) return undefined;
    const pattern = new HeadPattern(text, head.spans, headerNames.length);
    const routed = { head, target, headerNames, pattern };
    if (text.length <= MAX_KEPT_HEAD_BYTES) this.#heads.set(text, routed);
    return routed;
  }

  routes({ headerNames }: RoutedHead): boolean {
    return this.#path.enabled && this.context.front.hooks('infer').headerNames === headerNames;
  }

  began(): void {
    this.#path.requests++;
  }

  isLoopback(): boolean {
    return this.#path.isLoopback();
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
