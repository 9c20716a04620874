// Who may load and unload: anybody on a loopback listener, else whoever has the token.
import { timingSafeEqual } from 'node:crypto';
import { InvalidInputError, TercelError } from '../../errors.js';
import type { Interceptor } from '../interceptor.js';

export interface ControlOptions {
  /** Whoever sends `Authorization: Bearer <token>` may control, and nobody else. */
  adminToken?: string;
  /** Anybody who reaches the listener may control. */
  allowAdmin?: boolean;
}

/** Origins of web pages that this machine served: a page that the user looks at can reach loopback too. */
const ownOrigin = /^https?:\/\/(localhost|127(\.\d+){3}|\[::1\])(:\d+)?$/;

function sameText(a: string, b: string): boolean {
  const [x, y] = [Buffer.from(a), Buffer.from(b)];
  return x.length === y.length && timingSafeEqual(x, y);
}

/**
 * Refuses control to those who may not.
 *
 * @throws InvalidInputError for a token that anybody would have
 */
export function accessInterceptor({ adminToken, allowAdmin }: ControlOptions): Interceptor {
  if (adminToken === '') throw new InvalidInputError('adminToken: expected a token, got none');
  return {
    name: 'access',
    kinds: ['control'],
    headers: ['authorization', 'origin'],
    enter(exchange) {
      if (adminToken !== undefined) {
        const [scheme = '', token = ''] = (exchange.header('authorization') ?? '').split(' ');
        if (scheme.toLowerCase() === 'bearer' && sameText(token, adminToken)) return;
        throw new TercelError(
          'UNAUTHENTICATED',
          'control endpoints need the header "Authorization: Bearer <token>"',
        );
      }
      const origin = exchange.header('origin');
      const isForeign = origin !== undefined && !ownOrigin.test(origin);
      if (allowAdmin || (exchange.peer.loopback && !isForeign)) return;
      throw new TercelError(
        'DENIED',
        'control endpoints are closed on a listener that is not loopback; configure a token, or allow them',
      );
    },
  };
}
