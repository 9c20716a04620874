// Infer requests, from bytes to bytes: what the wire and the route for small bodies have in common.
//
// Nothing here knows HTTP: a request is a target and two spans of bytes, an answer goes to a Reply.
import type { Catalog } from '../catalog/catalog.js';
import type { Servable } from '../catalog/model-servable.js';
import { PlanCache } from '../protocol/v2/plan-cache.js';
import { plannedResponse, type PlannedResponse } from '../protocol/v2/plan.js';
import { encodeInferResponse } from '../protocol/v2/rest.js';
import type { Regions } from '../protocol/v2/spans.js';
import { HttpError } from './errors.js';
import { PreparedRequests } from './prepared.js';
import { Targets, type Target } from './targets.js';

/** Where an answer goes: one of the two is called, once. */
export interface Reply {
  answer(response: PlannedResponse): void;
  fail(error: unknown): void;
}

/** A run that goes on, for who has to end it. */
export interface Running {
  readonly servable: Servable;
  readonly slot: number;
}

/** Answers infer requests ahead of Fastify. */
export class DirectInfer {
  /** Requests are to be seen where Fastify sees them, for now. */
  paused = false;
  #on = true;
  /** Requests answered. */
  answered = 0;
  readonly #catalog: Catalog;
  readonly #targets = new Targets();
  readonly #plans: PlanCache;
  readonly #prepared = new PreparedRequests();

  constructor(catalog: Catalog, regions?: Regions) {
    this.#catalog = catalog;
    this.#plans = new PlanCache(regions);
  }

  /** Off where Fastify has anything to add. */
  get enabled(): boolean {
    return this.#on && !this.paused;
  }

  set enabled(on: boolean) {
    this.#on = on;
  }

  /** What a path names; null where it is not one of infer requests. */
  target(url: string): Target | null {
    return this.#targets.of(url);
  }

  /** Whether a model is there to answer. */
  serves({ name, version }: Target): boolean {
    return this.#catalog.find(name, version) !== undefined;
  }

  /**
   * Starts a request, or fails it: the reply is told either way, at once or later.
   *
   * @param json the JSON part
   * @param binary the tensors after it; copied before this returns, unless it lies in a lease
   * @param concurrent whether others come with it
   * @returns what goes on; undefined when it is over already
   */
  start(
    target: Target,
    json: Buffer,
    binary: Uint8Array,
    concurrent: boolean,
    reply: Reply,
  ): Running | undefined {
    this.answered++;
    try {
      const servable = this.#catalog.find(target.name, target.version);
      // Unloaded while the body came.
      if (!servable) throw new HttpError(404, `model "${target.name}" does not exist`);
      const { plan, inputs } = this.#plans.read(json, binary);
      const { selection, priority, timeoutMs } = this.#prepared.of(plan.request, servable);
      const slot = servable.model.start(
        inputs,
        selection,
        { priority, timeoutMs, concurrent },
        (values) => {
          let response: PlannedResponse;
          try {
            response = plannedResponse(plan, servable, values, () =>
              encodeInferResponse(servable, plan.request, values),
            );
          } catch (error) {
            reply.fail(error);
            return;
          }
          reply.answer(response);
        },
        (error) => reply.fail(error),
      );
      return slot === undefined ? undefined : { servable, slot };
    } catch (error) {
      reply.fail(error);
      return undefined;
    }
  }
}

/** Ends a run whose client is gone; its reply hears of it. */
export function cancel({ servable, slot }: Running): void {
  servable.model.cancel(slot);
}
