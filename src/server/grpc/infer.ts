// ModelInfer and ModelStreamInfer: infer requests from message to message.
//
// Messages come and go as bytes; a client's requests differ in their tensors only, so what the rest says is
// read once (see v2-grpc.ts).
import type { ServerDuplexStream, ServerUnaryCall, sendUnaryData } from '@grpc/grpc-js';
import type { Engine } from '../../engine.js';
import type { Servable } from '../../catalog/model-servable.js';
import type { Tensor } from '../../tensor.js';
import {
  cutInferRequest,
  decodeGrpcInfer,
  encodeGrpcInfer,
  encodeStreamError,
  encodeStreamResponse,
  plannedGrpcInputs,
  type GrpcPlan,
} from '../../protocol/v2/grpc.js';
import type { Regions } from '../../protocol/v2/spans.js';
import type { Arrivals } from '../../serving/burst.js';
import { answerFor, grpcStatusFor } from '../../serving/errors.js';
import type { HotMethod } from './unary.js';
import { deadlineOf } from './server.js';
import { Preparations, cancel, type Running } from '../../serving/exchange.js';
import { find } from '../../serving/about.js';

const MAX_PLANS = 256;
/** Requests of one stream that may be under way: its reading waits beyond them. */
const MAX_STREAMED = 512;

export type InferCall = ServerUnaryCall<Buffer, Buffer>;
export type InferStream = ServerDuplexStream<Buffer, Buffer>;

export class GrpcInfer {
  readonly #engine: Engine;
  readonly #regions: Regions | undefined;
  readonly #arrivals: Arrivals;
  readonly #plans = new Map<string, GrpcPlan>();
  readonly #preparations = new Preparations();

  constructor(engine: Engine, arrivals: Arrivals, regions: Regions | undefined) {
    this.#engine = engine;
    this.#arrivals = arrivals;
    this.#regions = regions;
  }

  /**
   * Starts a request: one of `done` and `failed` is called, at once or later.
   *
   * @param deadline in milliseconds since 1970; Infinity: none
   * @returns what goes on; undefined when it is over already
   */
  #start(
    message: Buffer,
    deadline: number,
    done: (response: Buffer) => void,
    failed: (error: unknown, id: string) => void,
  ): Running | undefined {
    const concurrent = this.#arrivals.count();
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
      const { selection, priority, timeoutMs } = this.#preparations.of(plan.request, servable);
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
      this.#engine.find(model, version) ??
      find(this.#engine, { model, ...(version !== undefined && { version }) })
    );
  }

  /** Below grpc-js; see answerBelow(). */
  readonly hot: HotMethod = (message, deadline, reply) => {
    const run = this.#start(
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
    const end = this.hot(call.request, deadlineOf(call), {
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

  /** Requests of a stream share batches; answers go out in the order of the requests. */
  readonly stream = (call: InferStream): void => {
    const deadline = deadlineOf(call);
    const running = new Set<Running>();
    /** By request, oldest first; without a response while it is under way. */
    const answers: { response?: Buffer; run?: Running | undefined }[] = [];
    let ended = false;
    let over = false;
    let draining = false;
    const flush = (): void => {
      while (!over && !draining && answers[0]?.response) {
        if (!call.write(answers.shift()!.response!)) {
          draining = true;
          call.once('drain', () => {
            draining = false;
            flush();
          });
        }
      }
      if (over) return;
      if (answers.length === 0 && ended) {
        over = true;
        call.end();
      } else if (answers.length < MAX_STREAMED && !draining && call.isPaused()) {
        call.resume();
      }
    };
    call.on('data', (message: Buffer) => {
      if (over) return;
      const answer: (typeof answers)[number] = {};
      answers.push(answer);
      const settle = (response: Buffer): void => {
        answer.response = response;
        if (answer.run) running.delete(answer.run);
        flush();
      };
      answer.run = this.#start(
        message,
        deadline,
        (response) => settle(encodeStreamResponse(response)),
        (error, id) => settle(encodeStreamError(answerFor(error).message, id)),
      );
      if (answer.run) running.add(answer.run);
      if (answers.length >= MAX_STREAMED || draining) call.pause();
    });
    call.on('end', () => {
      ended = true;
      flush();
    });
    call.on('cancelled', () => {
      over = true;
      for (const run of running) cancel(run);
    });
    call.on('error', () => {}); // the client broke off; 'cancelled' says so too
  };
}
