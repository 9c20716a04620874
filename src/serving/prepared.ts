// What requests need of their models, found once for each plan and model.
import type { Servable } from '../catalog/model-servable.js';
import type { InferRequest } from '../protocol/v2/request.js';
import { readPriority, readTimeout } from '../runtime/run-options.js';
import type { Selection } from '../runtime/selection.js';
import { withDefaults } from './defaults.js';

export interface Prepared {
  readonly servable: Servable;
  readonly selection: Selection;
  readonly priority: number;
  /** 0: none. */
  readonly timeoutMs: number;
}

export class PreparedRequests {
  readonly #prepared = new WeakMap<object, Prepared>();

  /**
   * @param request kept with its plan: the same object for the requests that are alike
   * @throws InvalidInputError for an output that the model has not, or a priority that there is not
   */
  of(
    request: Pick<InferRequest, 'outputs' | 'priority' | 'timeoutMs'>,
    servable: Servable,
  ): Prepared {
    const known = this.#prepared.get(request);
    if (known?.servable === servable) return known;
    const { outputs, priority, timeoutMs } = request;
    const options = withDefaults(servable.config, { priority, timeoutMs });
    const prepared = {
      servable,
      selection: servable.model.select(outputs?.map(({ name }) => name)),
      priority: readPriority(options),
      timeoutMs: readTimeout(options),
    };
    this.#prepared.set(request, prepared);
    return prepared;
  }
}
