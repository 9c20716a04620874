// ModelStreamInfer: many infer requests on one call.
import type { ServerDuplexStream } from '@grpc/grpc-js';
import { encodeStreamError, encodeStreamResponse } from '../../protocol/v2/grpc.js';
import { answerFor } from '../../serving/errors.js';
import { cancel, type Running } from '../../serving/exchange.js';
import type { GrpcInfer } from './infer.js';
import { deadlineOf } from './server.js';

/** Requests of one stream that may be under way: its reading waits beyond them. */
const MAX_STREAMED = 512;

export type InferStream = ServerDuplexStream<Buffer, Buffer>;

/** Requests of a stream share batches; answers go out in the order of the requests. */
export function streamInfer(infer: GrpcInfer, call: InferStream): void {
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
    answer.run = infer.start(
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
}
