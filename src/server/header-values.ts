// Headers that interceptors read, of a request that Node read, by HTTP/1 or HTTP/2.
import type { IncomingHttpHeaders } from 'node:http';
import { NO_HEADERS } from '../serving/exchange.js';

/** The values in the order of the names, those that came twice as Node joins them. */
export function headerValues(
  headers: IncomingHttpHeaders,
  names: readonly string[],
): readonly (string | undefined)[] {
  if (names.length === 0) return NO_HEADERS;
  return names.map((name) => {
    const value = headers[name];
    return Array.isArray(value) ? value.join(', ') : value;
  });
}
