// What a server is given: what there is to serve, and what every request passes.
import type { Catalog } from '../catalog/catalog.js';
import type { ErrorCode } from '../errors.js';
import type { Repository } from '../repository/repository.js';
import type { Burst } from './burst.js';
import type { Interceptors } from './front.js';

/** What servers serve; an Engine is one. */
export interface Serving {
  readonly catalog: Catalog;
  /** Undefined where models are loaded by the program alone. */
  readonly repository: Repository | undefined;
  /** Whether what is to be served at the start is there. */
  readonly ready: boolean;
  /** The program's interceptors. */
  readonly interceptors: Interceptors;
  /** Of all servers of the thread. */
  readonly burst: Burst;
  /** Requests that failed before a model was found, by error. */
  readonly unmatched: Map<ErrorCode, number>;
}
