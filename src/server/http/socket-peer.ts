// Who is at the other end of a socket.
import type { Socket } from 'node:net';
import type { Peer } from '../../serving/peer.js';

export class SocketPeer implements Peer {
  readonly inProcess = false;
  readonly #socket: Socket;
  readonly #listener: { isLoopback(): boolean };
  #address: string | undefined;

  constructor(socket: Socket, listener: { isLoopback(): boolean }) {
    this.#socket = socket;
    this.#listener = listener;
  }

  get address(): string {
    return (this.#address ??= this.#socket.remoteAddress ?? '');
  }

  get loopback(): boolean {
    return this.#listener.isLoopback();
  }

  get tls(): boolean {
    return (this.#socket as Socket & { encrypted?: boolean }).encrypted === true;
  }
}
