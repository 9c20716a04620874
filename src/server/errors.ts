// Errors as HTTP answers: the only place that knows statuses.
import type { FastifyError } from 'fastify';
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
  const { statusCode, message } = error as FastifyError;
  if (statusCode && statusCode < 500) return { status: statusCode, message };
  // What we did not foresee stays in the log.
  return { status: statusCode ?? 500, message: 'internal error' };
}
