// The v2 protocol over gRPC: infer requests read and answered by the plans of earlier ones.
//
// Messages come and go as bytes; a client's requests differ in their tensors only, so what the rest says is
// read once (see grpc.ts).
import type { Tensor } from '../../tensor.js';
import type { Servable, Values } from '../../types/servable.js';
import { BoundedMap } from '../bounded-map.js';
import type { Codec, Decoding } from '../codec.js';
import {
  cutInferRequest,
  decodeGrpcInfer,
  encodeGrpcInfer,
  plannedGrpcInputs,
  type GrpcPlan,
  type ResponseEnd,
} from './grpc.js';
import type { Regions } from './spans.js';

const MAX_PLANS = 256;

export class GrpcCodec implements Codec<[message: Buffer], GrpcPlan, Buffer> {
  readonly #regions: Regions | undefined;
  readonly #plans = new BoundedMap<GrpcPlan>(MAX_PLANS);

  /** @param regions where shared memory lies; undefined where it is not allowed */
  constructor(regions?: Regions) {
    this.#regions = regions;
  }

  read(into: Decoding<GrpcPlan>, message: Buffer): Record<string, Tensor> {
    const cut = cutInferRequest(message);
    into.id = cut.id ?? '';
    const known = cut.key === '' ? undefined : this.#plans.get(cut.key);
    if (known) {
      into.plan = known;
      return plannedGrpcInputs(known, cut.raw);
    }
    const decoded = decodeGrpcInfer(message, this.#regions);
    const { inputs } = decoded.request;
    // Kept without the tensors and the id.
    const { id: _id, ...shape } = decoded.request;
    const plan: GrpcPlan = { ...decoded, request: { ...shape, inputs: {} } };
    into.plan = plan;
    if (cut.key !== '' && plan.rawInputs.length > 0) this.#plans.set(cut.key, plan);
    return inputs;
  }

  write(
    plan: GrpcPlan,
    servable: Servable,
    id: string,
    values: Values,
    end: ResponseEnd = 'only',
  ): Buffer {
    return encodeGrpcInfer(plan, servable, id, values, end);
  }
}
