// Servers of the protocols that we speak, ours or not.
import { ModelError } from '../../errors.js';

export const protocols = ['oip-http', 'oip-grpc', 'tfs-http', 'tfs-grpc'] as const;
export type Protocol = (typeof protocols)[number];

export interface ServerOptions {
  readonly url: URL;
  readonly protocol: Protocol;
  readonly model: string;
  readonly version?: string | undefined;
  /** oip-http: numbers in JSON rather than behind it. */
  readonly json: boolean;
  readonly headers: Readonly<Record<string, string>>;
  /** HTTP connections of an open loop. */
  readonly connections?: number | undefined;
}

/** The part of errors that says that nobody is there. */
export function unreachable(url: URL, cause: unknown): ModelError {
  const { cause: inner, message, code } = cause as Error & { code?: string };
  const reason = (inner as Error | undefined)?.message || message || code;
  return new ModelError(`cannot reach ${url.origin}: ${String(reason)}`, { cause });
}

/** How paths name a model. */
export const pathOf = (model: string, version: string | undefined): string =>
  encodeURIComponent(model) +
  (version === undefined ? '' : `/versions/${encodeURIComponent(version)}`);
