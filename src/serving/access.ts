// Who may load and unload: anybody on a loopback listener, else whoever has the token.
import { timingSafeEqual } from 'node:crypto';
import { InvalidInputError } from '../errors.js';
import { HttpError } from './errors.js';

export interface ControlOptions {
  /** Whoever sends `Authorization: Bearer <token>` may control, and nobody else. */
  adminToken?: string;
  /** Anybody who reaches the listener may control. */
  allowAdmin?: boolean;
}

/** Throws InvalidInputError for a token that anybody would have. */
export function checkControl({ adminToken }: ControlOptions): void {
  if (adminToken === '') throw new InvalidInputError('adminToken: expected a token, got none');
}

export function isLoopback(address: string): boolean {
  return /^(127\.|::1$|::ffff:127\.)/.test(address);
}

function sameText(a: string, b: string): boolean {
  const [x, y] = [Buffer.from(a), Buffer.from(b)];
  return x.length === y.length && timingSafeEqual(x, y);
}

/**
 * Whether somebody may control: throws HttpError unless.
 *
 * @param authorization what came as the header of that name
 * @param open whether only this machine reaches the listener
 */
export function mayControl(
  authorization: string | undefined,
  open: boolean,
  options: ControlOptions,
): void {
  if (options.adminToken !== undefined) {
    const [scheme = '', token = ''] = (authorization ?? '').split(' ');
    if (scheme.toLowerCase() === 'bearer' && sameText(token, options.adminToken)) return;
    throw new HttpError(401, 'control endpoints need the header "Authorization: Bearer <token>"');
  }
  if (options.allowAdmin || open) return;
  throw new HttpError(
    403,
    'control endpoints are closed on a listener that is not loopback; configure a token, or allow them',
  );
}
