// Errors as answers: the only place that knows the codes of HTTP and gRPC.
import { TercelError, type ErrorCode } from '../errors.js';

/**
 * HTTP's status and gRPC's code of each error.
 *
 * Sources: RFC 9110; https://grpc.github.io/grpc/core/md_doc_statuscodes.html; 499 is nginx's.
 */
const codes: Readonly<Record<ErrorCode, readonly [status: number, grpc: number]>> = {
  INVALID_INPUT: [400, 3], // INVALID_ARGUMENT
  UNAUTHENTICATED: [401, 16],
  DENIED: [403, 7], // PERMISSION_DENIED
  NOT_FOUND: [404, 5],
  METHOD_NOT_ALLOWED: [405, 12],
  CONFLICT: [409, 9], // FAILED_PRECONDITION
  TOO_LARGE: [413, 8], // RESOURCE_EXHAUSTED
  MEDIA_TYPE: [415, 3],
  QUOTA: [429, 8],
  CANCELLED: [499, 1],
  MODEL: [500, 13], // INTERNAL
  RUN: [500, 13],
  INTERNAL: [500, 13],
  UNIMPLEMENTED: [501, 12],
  OVERLOAD: [503, 14], // UNAVAILABLE, as Triton has it
  CLOSED: [503, 14],
  UNAVAILABLE: [503, 14],
  TIMEOUT: [504, 4], // DEADLINE_EXCEEDED
};

/** Seconds after which a client may try again, where the answer is 503. */
const RETRY_AFTER_S = 1;

const codeOfStatus = new Map<number, ErrorCode>(
  Object.entries(codes)
    .filter(([code]) => code !== 'MODEL' && code !== 'RUN')
    .map(([code, [status]]) => [status, code as ErrorCode]),
);

/** Any error as one of ours: those of others keep a status below 500, and what was not foreseen is INTERNAL. */
export function knownError(error: unknown): TercelError {
  if (error instanceof TercelError) return error;
  const { statusCode, message } = (error ?? {}) as { statusCode?: number; message?: string };
  if (statusCode !== undefined && statusCode < 500 && message !== undefined) {
    const code = codeOfStatus.get(statusCode) ?? 'INVALID_INPUT';
    return new TercelError(code, message, { cause: error });
  }
  return new TercelError('INTERNAL', 'internal error', { cause: error });
}

/** An error as HTTP answers it: the text is what the client may see. */
export interface HttpErrorAnswer {
  readonly status: number;
  readonly message: string;
  /** Seconds; undefined where trying again does not help. */
  readonly retryAfter: number | undefined;
}

export function answerFor(error: unknown): HttpErrorAnswer {
  const { code, message } = knownError(error);
  const foreign = (error as { statusCode?: number } | undefined)?.statusCode;
  const status = error instanceof TercelError || !foreign ? codes[code][0] : foreign;
  return { status, message, retryAfter: status === 503 ? RETRY_AFTER_S : undefined };
}

/** Tells whoever runs the server of an error that nobody foresaw: the client is not told what it was. */
export function reportInternal(operation: string, { cause }: TercelError): void {
  console.error(`${operation}: internal error:`, cause);
}

/** It travels in a header, percent-encoded: a client's own long names in it would be too much for that. */
const MAX_DETAILS = 2048;

/** An error as a gRPC status. */
export function grpcStatusFor(error: unknown): { code: number; details: string } {
  const { code, message } = knownError(error);
  const cut = message.length > MAX_DETAILS ? `${message.slice(0, MAX_DETAILS)}...` : message;
  // Half a surrogate pair has no encoding.
  return { code: codes[code][1], details: cut.replace(/\p{Surrogate}/gu, '\ufffd') };
}
