/**
 * What went wrong, as a stable string. The ones that have a class below come from the engine; the others say
 * how a server refuses a request, and an interceptor may throw any: `new TercelError('DENIED', 'not you')`.
 */
export type ErrorCode =
  | 'INVALID_INPUT'
  | 'NOT_FOUND'
  | 'MODEL'
  | 'OVERLOAD'
  | 'TIMEOUT'
  | 'CANCELLED'
  | 'CLOSED'
  | 'RUN'
  /** Nobody said who is calling. */
  | 'UNAUTHENTICATED'
  /** The caller may not do that. */
  | 'DENIED'
  /** The path takes another verb. */
  | 'METHOD_NOT_ALLOWED'
  /** Something is under way that excludes it. */
  | 'CONFLICT'
  | 'TOO_LARGE'
  | 'MEDIA_TYPE'
  /** The caller's own quota is used up. */
  | 'QUOTA'
  /** The protocol cannot carry it, or the server does not do it. */
  | 'UNIMPLEMENTED'
  /** Not now: loading, draining. The same request may succeed later. */
  | 'UNAVAILABLE'
  /** Nothing that was foreseen. */
  | 'INTERNAL';

/** The base of every error that Tercel throws on purpose. */
export class TercelError extends Error {
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

/** An argument is wrong: a name, a dtype, a shape, a buffer, an option. */
export class InvalidInputError extends TercelError {
  constructor(message: string, options?: ErrorOptions) {
    super('INVALID_INPUT', message, options);
  }
}

/** There is no model, or no version of it, by that name. */
export class NotFoundError extends TercelError {
  constructor(message: string, options?: ErrorOptions) {
    super('NOT_FOUND', message, options);
  }
}

/** A model, a provider or the ONNX Runtime library cannot be loaded. */
export class ModelError extends TercelError {
  constructor(message: string, options?: ErrorOptions) {
    super('MODEL', message, options);
  }
}

/** A bounded queue or the arena is full; the same call may succeed later. */
export class OverloadError extends TercelError {
  constructor(message: string, options?: ErrorOptions) {
    super('OVERLOAD', message, options);
  }
}

/** The request's deadline passed, in the queue or during the run. */
export class TimeoutError extends TercelError {
  constructor(message: string, options?: ErrorOptions) {
    super('TIMEOUT', message, options);
  }
}

/** Whoever asked is gone, or took the request back. */
export class CancelledError extends TercelError {
  constructor(message: string, options?: ErrorOptions) {
    super('CANCELLED', message, options);
  }
}

/** The model, binding or engine was closed. */
export class ClosedError extends TercelError {
  constructor(message: string, options?: ErrorOptions) {
    super('CLOSED', message, options);
  }
}

/** The graph failed while it ran. */
export class RunError extends TercelError {
  constructor(message: string, options?: ErrorOptions) {
    super('RUN', message, options);
  }
}

// In the order of Code in native/core/base/status.h.
const byNativeCode: ((message: string) => TercelError)[] = [
  (message) => new RunError(message),
  (message) => new InvalidInputError(message),
  (message) => new ModelError(message),
  (message) => new OverloadError(message),
  (message) => new TimeoutError(message),
  (message) => new ClosedError(message),
  (message) => new RunError(message),
  (message) => new CancelledError(message),
];

for (const type of [
  TercelError,
  InvalidInputError,
  NotFoundError,
  ModelError,
  OverloadError,
  TimeoutError,
  CancelledError,
  ClosedError,
  RunError,
]) {
  Object.defineProperty(type.prototype, 'name', { value: type.name });
}

/** Makes the error for a native status. */
export function errorFromNative(code: number, message: string): TercelError {
  return (byNativeCode[code] ?? byNativeCode[0]!)(message);
}
