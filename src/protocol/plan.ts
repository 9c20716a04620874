// What a request says of itself besides its tensors, worked out once and kept for requests that say the same.
import type { Servable } from '../types/servable.js';

/** What every protocol's request may say. */
export interface RequestShape {
  /** Undefined: all. */
  readonly outputs?: readonly { readonly name: string; readonly span?: unknown }[] | undefined;
  /** 1 (first) to 8; undefined: as configured. */
  readonly priority?: number | undefined;
  readonly timeoutMs?: number | undefined;
}

/** A request's shape, and what it needs of the servable that it was last for. */
export interface Plan {
  readonly request: RequestShape;
  preparedFor: Servable | undefined;
  prepared: unknown;
  priority: number;
  /** 0: none. */
  timeoutMs: number;
}

/** What the exchange fills in. */
export const UNPREPARED = {
  preparedFor: undefined,
  prepared: undefined,
  priority: 0,
  timeoutMs: 0,
} as const;

/** A plan for one request alone. */
export function planFor(request: RequestShape): Plan {
  return { request, ...UNPREPARED };
}
