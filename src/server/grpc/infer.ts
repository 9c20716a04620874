// Infer requests of gRPC from message to message, and ModelInfer.
//
// Messages come and go as bytes; a client's requests differ in their tensors only, so what the rest says is
// read once (see protocol/v2/grpc.ts).
import type { ServerUnaryCall, sendUnaryData } from '@grpc/grpc-js';
import type { Catalog } from '../../catalog/catalog.js';
import type { Servable } from '../../catalog/model-servable.js';
import {
  cutInferRequest,
  decodeGrpcInfer,
  encodeGrpcInfer,
  plannedGrpcInputs,
  type GrpcPlan,
} from '../../protocol/v2/grpc.js';
import type { Regions } from '../../protocol/v2/spans.js';
import { find } from '../../serving/about.js';
import type { Burst } from '../../serving/burst.js';
import { grpcStatusFor } from '../../serving/errors.js';
import { cancel, type Running } from '../../serving/exchange.js';
import { PreparedRequests } from '../../serving/prepared.js';
import type { Tensor } from '../../tensor.js';
import { deadlineOf } from './server.js';
import type { UnaryMethod } from './unary.js';

const MAX_PLANS = 256;

export type InferCall = ServerUnaryCall<Buffer, Buffer>;

export class GrpcInfer {
  readonly #catalog: Catalog;
  readonly #regions: Regions | undefined;
  readonly #burst: Burst;
  readonly #plans = new Map<string, GrpcPlan>();
  readonly #prepared = new PreparedRequests();

  constructor(catalog: Catalog, burst: Burst, regions: Regions | undefined) {
    this.#catalog = catalog;
    this.#burst = burst;
    this.#regions = regions;
  }

  /**
   * Starts a request: one of `done` and `failed` is called, at once or later.
   *
   * @param deadline in milliseconds since 1970; Infinity: none
   * @returns what goes on; undefined when it is over already
   */
  start(
    message: Buffer,
    deadline: number,
    done: (response: Buffer) => void,
    failed: (error: unknown, id: string) => void,
  ): Running | undefined {
    const concurrent = this.#burst.count();
    let id = '';
    try {
      const cut = cutInferRequest(message);
      id = cut.id ?? '';
      let plan = cut.key === '' ? undefined : this.#plans.get(cut.key);
      let inputs: Record<string, Tensor>;
      if (plan) {
        inputs = plannedGrpcInputs(plan, cut.raw);
      } else {
        plan = decodeGrpcInfer(message, this.#regions);
        inputs = plan.request.inputs;
        plan.request = { ...plan.request, inputs: {} };
        if (cut.key !== '' && plan.rawInputs.length > 0) {
          if (this.#plans.size >= MAX_PLANS) this.#plans.clear();
          this.#plans.set(cut.key, plan);
        }
      }
      const servable = this.#find(plan);
      const { selection, priority, timeoutMs } = this.#prepared.of(plan.request, servable);
      const left = deadline === Infinity ? 0 : Math.max(deadline - Date.now(), 0.001);
      const answering = plan;
      const slot = servable.model.start(
        inputs,
        selection,
        {
          priority,
          timeoutMs: left === 0 ? timeoutMs : timeoutMs === 0 ? left : Math.min(left, timeoutMs),
          concurrent,
        },
        (values) => {
          let response: Buffer;
          try {
            response = encodeGrpcInfer(answering, servable, id, values);
          } catch (error) {
            failed(error, id);
            return;
          }
          done(response);
        },
        (error) => failed(error, id),
      );
      return slot === undefined ? undefined : { servable, slot };
    } catch (error) {
      failed(error, id);
      return undefined;
    }
  }

  #find({ model, version }: GrpcPlan): Servable {
    return (
      this.#catalog.find(model, version) ??
      find(this.#catalog, { model, ...(version !== undefined && { version }) })
    );
  }

  /** Below grpc-js; see answerBelow(). */
  readonly below: UnaryMethod = (message, deadline, reply) => {
    const run = this.start(
      message,
      deadline,
      (response) => reply.answer(response),
      (error) => reply.fail(error),
    );
    return run && (() => cancel(run));
  };

  readonly unary = (call: InferCall, callback: sendUnaryData<Buffer>): void => {
    // 'cancelled' comes after every call, also one that went well: by then the slot may be another's.
    let over = false;
    const end = this.below(call.request, deadlineOf(call), {
      answer(response) {
        over = true;
        callback(null, response);
      },
      fail(error) {
        over = true;
        callback(grpcStatusFor(error));
      },
    });
    call.on('cancelled', () => {
      if (!over) end?.();
    });
  };
}
