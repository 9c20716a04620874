// Errors as HTTP answers: the only place that knows statuses.
import { TercelError, type ErrorCode } from '../errors.js';

const statuses: Record<ErrorCode, number> = {
  INVALID_INPUT: 400,
  MODEL: 500,
  OVERLOAD: 503,
  TIMEOUT: 503,
  CLOSED: 503,
  RUN: 500,
  ABORTED: 503,
};

/** gRPC's codes: https://grpc.github.io/grpc/core/md_doc_statuscodes.html */
const grpcCodes: Record<ErrorCode, number> = {
  INVALID_INPUT: 3, // INVALID_ARGUMENT
  MODEL: 13, // INTERNAL
  OVERLOAD: 14, // UNAVAILABLE, as Triton has it
  TIMEOUT: 4, // DEADLINE_EXCEEDED
  CLOSED: 14,
  RUN: 13,
  ABORTED: 1, // CANCELLED
};
const grpcCodeOfStatus: Readonly<Record<number, number>> = {
  400: 3,
  401: 16, // UNAUTHENTICATED
  403: 7, // PERMISSION_DENIED
  404: 5, // NOT_FOUND
  413: 8, // RESOURCE_EXHAUSTED
  503: 14,
};

/** An error with a status of its own: an unknown model, a path that is not there. */
export class HttpError extends Error {
  readonly statusCode: number;

  constructor(statusCode: number, message: string) {
    super(message);
    this.statusCode = statusCode;
  }
}

/** The status of an error, and the text that the client may see. */
export function answerFor(error: unknown): { status: number; message: string } {
  if (error instanceof TercelError) return { status: statuses[error.code], message: error.message };
  const { statusCode, message } = error as Error & { statusCode?: number };
  if (statusCode && statusCode < 500) return { status: statusCode, message };
  // What we did not foresee stays in the log.
  return { status: statusCode ?? 500, message: 'internal error' };
}

/** It travels in a header, percent-encoded: a client's own long names in it would be too much for that. */
const MAX_DETAILS = 2048;

/** An error as a gRPC status. */
export function grpcStatusFor(error: unknown): { code: number; details: string } {
  const { status, message } = answerFor(error);
  const cut = message.length > MAX_DETAILS ? `${message.slice(0, MAX_DETAILS)}...` : message;
  // Half a surrogate pair has no encoding.
  const details = cut.replace(/\p{Surrogate}/gu, '\ufffd');
  if (error instanceof TercelError) return { code: grpcCodes[error.code], details };
  return { code: grpcCodeOfStatus[status] ?? 13, details };
}
