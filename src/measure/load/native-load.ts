// Loads the load generator's addon: the only file that does, and that knows its shape.
import { ModelError } from '../../errors.js';
import { requireAddon } from '../../native.js';

/** A load on an HTTP server; rate 0 is a closed loop. */
export interface HttpLoad {
  host: string;
  port: number;
  requests: Uint8Array[];
  connections: number;
  rate: number;
  poisson: boolean;
  seed: number;
  durationNs: number;
  drainNs: number;
  spinNs: number;
}

export interface HttpLoadResult {
  completed: number;
  perSecond: number;
  statuses: Record<string, number>;
  broken: number;
  unanswered: number;
  unsent: number;
  bytesIn: number;
  bytesOut: number;
  startNs: number;
  elapsedNs: number;
  cpuNs: number;
  lateNs: number;
  maxNs: number;
  gone: boolean;
  firstError: string;
}

interface LoadAddon {
  /**
   * See native/load/http_load.h. The arrays are written to until the promise settles.
   *
   * @param progress completed, failed, and what ends the load once it is 1
   */
  httpLoad(
    options: HttpLoad,
    progress: Int32Array,
    latency: Uint32Array,
    service: Uint32Array,
  ): Promise<HttpLoadResult>;
}

let addon: LoadAddon | undefined;

/** @throws (rejects) ModelError when the server cannot be reached, or the addon is not built */
export async function httpLoad(
  ...args: Parameters<LoadAddon['httpLoad']>
): Promise<HttpLoadResult> {
  addon ??= requireAddon('tercel_load.node') as LoadAddon;
  try {
    return await addon.httpLoad(...args);
  } catch (cause) {
    throw new ModelError((cause as Error).message, { cause });
  }
}
