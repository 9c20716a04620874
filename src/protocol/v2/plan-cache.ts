// Reads infer requests by the plans of earlier ones.
import { carve, parseEnvelope } from '../../runtime/json-carve.js';
import type { Tensor } from '../../tensor.js';
import { planOf, planOnce, plannedInputs, type InferPlan } from './plan.js';
import { decodeInferRequest } from './rest.js';
import type { Regions } from './spans.js';

/** JSON that is longer is not worth keeping. */
const MAX_PLANNED_JSON = 2048;
const MAX_PLANS = 256;

export class PlanCache {
  readonly #regions: Regions | undefined;
  readonly #plans = new Map<string, InferPlan>();

  /** @param regions where shared memory lies; undefined where it is not allowed */
  constructor(regions?: Regions) {
    this.#regions = regions;
  }

  /**
   * Reads a request.
   *
   * @param json the JSON part
   * @param binary the tensors after it
   * @throws InvalidInputError as decodeInferRequest()
   */
  read(json: Buffer, binary: Uint8Array): { plan: InferPlan; inputs: Record<string, Tensor> } {
    // Where tensors come after it, the JSON is short and the same each time; else the numbers are in it.
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
