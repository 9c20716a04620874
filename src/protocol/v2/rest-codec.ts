// The v2 protocol over HTTP: infer requests read and answered by the plans of earlier ones.
import {
  carve,
  LATER_FROM_BYTES,
  parseCarved,
  parseEnvelope,
  type Later,
} from '../../runtime/json-carve.js';
import { printJsonLater } from '../../runtime/json-print.js';
import type { Tensor } from '../../tensor.js';
import type { Servable, Values } from '../../types/servable.js';
import { BoundedMap } from '../bounded-map.js';
import type { Codec, Decoding } from '../codec.js';
import {
  planOf,
  planOnce,
  plannedInputs,
  plannedResponse,
  type InferPlan,
  type PlannedResponse,
} from './plan.js';
import type { InferRequest } from './request.js';
import { decodeInferRequest, decodeRawRequest, encodeInferResponse } from './rest.js';
import type { Regions } from './spans.js';

/** JSON that is longer is not worth keeping. */
const MAX_PLANNED_JSON = 2048;
const MAX_PLANS = 256;

/** An id at the head of a request: clients give each of theirs another, and mean the same by all else. */
const leadingId = /^\{"id":"([^"\\\p{Cc}]{1,128})",/u;

/** Whether JSON is so long that a thread of its own reads it, where the caller can wait. */
export function isReadLater(jsonBytes: number): boolean {
  return jsonBytes >= LATER_FROM_BYTES;
}

export class RestCodec implements Codec<
  [json: Buffer, binary: Uint8Array],
  InferPlan,
  PlannedResponse
> {
  readonly #regions: Regions | undefined;
  readonly #plans = new BoundedMap<InferPlan>(MAX_PLANS);

  /** @param regions where shared memory lies; undefined where it is not allowed */
  constructor(regions?: Regions) {
    this.#regions = regions;
  }

  /**
   * @param json the JSON part
   * @param binary the tensors after it
   * @throws InvalidInputError as decodeInferRequest()
   */
  read(into: Decoding<InferPlan>, json: Buffer, binary: Uint8Array): Record<string, Tensor> {
    // Where tensors come after it, the JSON is short and the same each time; else the numbers are in it.
    const isHeader = binary.length > 0 && json.length <= MAX_PLANNED_JSON;
    const carved = isHeader ? undefined : carve(json);
    let envelope = carved ? carved.envelope : json.toString('latin1');
    const isShort = envelope.length <= MAX_PLANNED_JSON;
    let id = '';
    if (isShort && envelope.startsWith('{"id":"')) {
      const match = leadingId.exec(envelope);
      if (match) {
        id = carved ? match[1]! : Buffer.from(match[1]!, 'latin1').toString();
        envelope = `{${envelope.slice(match[0].length)}`;
      }
    }
    // As many bytes after it: the spans of its tensors are the same then.
    const key = isShort ? `${carved ? 'cut' : 'raw'} ${binary.length} ${envelope}` : '';
    const known = isShort ? this.#plans.get(key) : undefined;
    if (known) {
      into.id = id;
      into.plan = known;
      return plannedInputs(known, carved, binary);
    }
    const parsed = parseEnvelope(carved ?? carve(json));
    const decoded = decodeInferRequest(parsed, binary, this.#regions);
    const plan = planOf(parsed, decoded);
    // A header with numbers in it would have to be cut first.
    const isKept = plan && isShort && (carved || parsed.spans.length === 0);
    into.id = decoded.id ?? '';
    into.plan = plan ?? planOnce(decoded);
    // An id anywhere else would be the same for all.
    if (isKept && into.id === id) this.#plans.set(key, plan);
    return decoded.inputs;
  }

  /**
   * As read(), for who can wait: long texts are read on a thread of their own.
   *
   * @throws (rejects) as read()
   */
  async readLater(
    into: Decoding<InferPlan>,
    json: Buffer,
    binary: Uint8Array,
  ): Promise<Record<string, Tensor>> {
    const later: Later = [];
    const decoded = decodeInferRequest(parseCarved(json), binary, this.#regions, later);
    take(into, decoded);
    await Promise.all(later);
    return decoded.inputs;
  }

  /**
   * A request that is all binary: see decodeRawRequest().
   *
   * @throws InvalidInputError when the model or the length does not allow it
   */
  readRaw(
    into: Decoding<InferPlan>,
    { inputs }: Servable,
    body: Uint8Array,
  ): Record<string, Tensor> {
    const decoded = decodeRawRequest(inputs, body);
    take(into, decoded);
    return decoded.inputs;
  }

  write(plan: InferPlan, servable: Servable, id: string, values: Values): PlannedResponse {
    return plannedResponse(plan, servable, id, values);
  }

  /**
   * As write(), for who can wait: long texts are printed on a thread of their own.
   *
   * @throws (rejects) as write()
   */
  async writeLater(
    { plan, id }: Decoding<InferPlan>,
    servable: Servable,
    values: Values,
  ): Promise<PlannedResponse> {
    const { request } = plan as InferPlan;
    const { template, tensors, binary } = encodeInferResponse(servable, request, id, values);
    return { head: await printJsonLater(template, tensors, false), binary };
  }
}

/** Puts the plan of a request that is not kept where it belongs. */
function take(into: Decoding<InferPlan>, request: InferRequest): void {
  into.id = request.id ?? '';
  into.plan = planOnce(request);
}
