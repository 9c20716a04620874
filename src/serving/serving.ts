// What a server is given: what there is to serve.
import type { Catalog } from '../catalog/catalog.js';
import type { Repository } from '../repository/repository.js';

/** What servers serve; an Engine is one. */
export interface Serving {
  readonly catalog: Catalog;
  /** Undefined where models are loaded by the program alone. */
  readonly repository: Repository | undefined;
  /** Whether what is to be served at the start is there. */
  readonly ready: boolean;
}
