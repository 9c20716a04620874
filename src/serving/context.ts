// What a server's exchanges have in common, as its options say.
import type { SharedMemory } from '../runtime/shared-memory.js';
import type { ExchangeContext } from './exchange.js';
import { Front, Interceptors } from './front.js';
import { accessInterceptor, type ControlOptions } from './interceptors/access.js';
import { logInterceptor } from './interceptors/log.js';
import { Logging } from './log-settings.js';
import { SharedRegions } from './regions.js';
import type { Serving } from './serving.js';

/** Options that all servers have. */
export interface ServerBasics extends ControlOptions {
  /**
   * Clients on this machine may register system shared memory, and name it in requests. Whoever may
   * control the server can then have it read and write any object in /dev/shm that it may open itself.
   * Default false; a SharedMemory is one that other servers of the process have too.
   */
  allowSharedMemory?: boolean | SharedMemory;
  /** What is logged, where other servers of the process have it too. */
  logging?: Logging;
}

/**
 * @returns `close`: what the server calls when it ends
 * @throws InvalidInputError for an empty adminToken
 */
export function contextOf(
  serving: Serving,
  options: ServerBasics,
): { context: ExchangeContext; regions: SharedRegions; logging: Logging; close: () => void } {
  const access = accessInterceptor(options);
  const logging = options.logging ?? new Logging();
  const regions = new SharedRegions(options.allowSharedMemory);
  const own = new Interceptors();
  const compose = (): void => own.set([...(logging.verbose ? [logInterceptor] : []), access]);
  const front = new Front(own, serving.interceptors);
  compose();
  const stop = logging.onChange(compose);
  return {
    context: { serving, front, spans: regions.spans },
    regions,
    logging,
    close() {
      stop();
      front.close();
      regions.close();
    },
  };
}
