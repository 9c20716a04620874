// Who is at the other end.

/** One for each connection. */
export interface Peer {
  /** The client's address; '' for a program that calls in this process, and over a Unix socket. */
  readonly address: string;
  /** Whether only this machine reaches the listener that it came to. */
  readonly loopback: boolean;
  readonly tls: boolean;
  /** It calls engine.infer() in this process. */
  readonly inProcess: boolean;
}

export const IN_PROCESS: Peer = { address: '', loopback: true, tls: false, inProcess: true };

export function isLoopback(address: string): boolean {
  return /^(127\.|::1$|::ffff:127\.)/.test(address);
}
