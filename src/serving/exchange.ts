// Infer requests, from bytes to bytes: what the hot route and the wire have in common.
//
// Nothing here knows HTTP: a request is a target and two spans of bytes, an answer goes to a Reply.
import { carve, parseEnvelope } from '../runtime/json-carve.js';
import { withDefaults } from './defaults.js';
import { type Engine } from '../engine.js';
import { type Servable } from '../catalog/model-servable.js';
import { readPriority, readTimeout } from '../runtime/run-options.js';
import type { Tensor } from '../tensor.js';
import { decodeInferRequest, encodeInferResponse } from '../protocol/v2/rest.js';
import type { InferRequest } from '../protocol/v2/request.js';
import type { Regions } from '../protocol/v2/spans.js';
import {
  planOf,
  planOnce,
  plannedInputs,
  plannedResponse,
  type InferPlan,
  type PlannedResponse,
} from '../protocol/v2/plan.js';
import { HttpError } from './errors.js';

/** JSON that is longer is not worth keeping. */
const MAX_PLANNED_JSON = 2048;
const MAX_PLANS = 256;
const MAX_TARGETS = 1024;

/** The model that a path names. */
export interface Target {
  readonly name: string;
  readonly version: string | undefined;
}

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

/** What a request needs of the model, found once for each plan and model. */
interface Prepared {
  servable: Servable;
  selection: ReturnType<Servable['model']['select']>;
  priority: number;
  timeoutMs: number;
}

/** What requests need of their models, by what they ask. */
export class Preparations {
  readonly #prepared = new WeakMap<object, Prepared>();

  /** @param request kept with its plan: the same object for the requests that are alike */
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

const route = /^\/v2\/models\/([^/?]+)(?:\/versions\/([^/?]+))?\/infer$/;

function decode(text: string): string | undefined {
  try {
    return decodeURIComponent(text);
  } catch {
    return undefined;
  }
}

export class HotInfer {
  /** Requests are to be seen where Fastify sees them, for now. */
  paused = false;
  #on = true;
  /** Requests answered. */
  answered = 0;
  readonly #engine: Engine;
  readonly #regions: Regions | undefined;
  readonly #targets = new Map<string, Target | null>();
  readonly #plans = new Map<string, InferPlan>();
  readonly #preparations = new Preparations();

  constructor(engine: Engine, regions?: Regions) {
    this.#engine = engine;
    this.#regions = regions;
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
    const known = this.#targets.get(url);
    if (known !== undefined) return known;
    const match = route.exec(url);
    const name = match && decode(match[1]!);
    const version = match?.[2] === undefined ? undefined : decode(match[2]);
    const isKnown = name && (match[2] === undefined || version !== undefined);
    const target = isKnown ? { name, version } : null;
    if (this.#targets.size >= MAX_TARGETS) this.#targets.clear();
    this.#targets.set(url, target);
    return target;
  }

  /** Whether a model is there to answer. */
  serves({ name, version }: Target): boolean {
    return this.#engine.find(name, version) !== undefined;
  }

  /**
   * Starts a request, or fails it: the reply is told either way, at once or later.
   *
   * @param json the JSON part
   * @param binary the tensors behind it; copied before this returns, unless it lies in a lease
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
      const servable = this.#engine.find(target.name, target.version);
      // Unloaded while the body came.
      if (!servable) throw new HttpError(404, `model "${target.name}" does not exist`);
      const { plan, inputs } = this.#read(json, binary);
      const { selection, priority, timeoutMs } = this.#preparations.of(plan.request, servable);
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

  #read(json: Buffer, binary: Uint8Array): { plan: InferPlan; inputs: Record<string, Tensor> } {
    // Where tensors lie behind it, the JSON is short and the same each time; else the numbers are in it.
    const isHeader = binary.length > 0 && json.length <= MAX_PLANNED_JSON;
    const carved = isHeader ? undefined : carve(json);
    const envelope = carved ? carved.envelope : json.toString('latin1');
    const isShort = envelope.length <= MAX_PLANNED_JSON;
    const key = isShort ? `${carved ? 'cut' : 'raw'} ${binary.length} ${envelope}` : '';
    const known = isShort ? this.#plans.get(key) : undefined;
    if (known) return { plan: known, inputs: plannedInputs(known, carved, binary) };
    const parsed = parseEnvelope(carved ?? carve(json));
    const decoded = decodeInferRequest(parsed, binary, this.#regions);
    const { inputs } = decoded;
    const plan = planOf(parsed, decoded);
    // A header with numbers in it would have to be cut first.
    const isKept = plan && isShort && (carved || parsed.spans.length === 0);
    if (!isKept) return { plan: plan ?? planOnce(decoded), inputs };
    if (this.#plans.size >= MAX_PLANS) this.#plans.clear();
    this.#plans.set(key, plan);
    return { plan, inputs };
  }
}

/** Ends a run whose client is gone; its reply hears of it. */
export function cancel({ servable, slot }: Running): void {
  servable.model.cancel(slot);
}
