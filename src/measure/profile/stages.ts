// Where a request's time goes, from its bytes to the bytes of its answer: one at a time, on a lane.
import { encodeRequest } from '../../client/codec.js';
import { loadModel } from '../../catalog/loader.js';
import { parseCarved } from '../../runtime/json-carve.js';
import { printJson } from '../../runtime/json-print.js';
import { decodeInferRequest, encodeInferResponse } from '../../protocol/v2/rest.js';
import type { Tensor } from '../../tensor.js';
import type { ModelOptions } from '../../types/model-options.js';
import { median } from '../statistics.js';

export interface Stage {
  name: string;
  us: number;
}

const REQUESTS = 64;

/** Microseconds of a clock of nanoseconds. */
export function nowUs(): number {
  return Number(process.hrtime.bigint()) / 1000;
}

/**
 * Sends requests of the v2 protocol through everything but the socket. What the server keeps for requests
 * that are alike (plans) is not in it: each is read and written in full.
 *
 * @param inputs no strings
 * @throws (rejects) as loadModel() and run()
 */
export async function stagesOf(
  file: string,
  options: ModelOptions,
  inputs: Record<string, Tensor>,
): Promise<Stage[]> {
  const model = await loadModel(file, { ...options, lanes: 1, inline: 'never' });
  try {
    const { parts, jsonBytes } = encodeRequest(inputs, { binary: true, outputs: undefined });
    const bytes = Buffer.concat(parts);
    const json = bytes.subarray(0, jsonBytes);
    const binary = bytes.subarray(jsonBytes);
    const answering = { name: 'model', version: '1', model };
    const times: Record<'parse' | 'submit' | 'wait' | 'encode', number[]> = {
      parse: [],
      submit: [],
      wait: [],
      encode: [],
    };
    await model.run(inputs);
    const before = model.stats();
    for (let i = 0; i < REQUESTS; i++) {
      const start = nowUs();
      const request = decodeInferRequest(parseCarved(json), binary);
      const parsed = nowUs();
      const promise = model.run(request.inputs);
      const submitted = nowUs();
      const values = await promise;
      const answered = nowUs();
      const { template, tensors } = encodeInferResponse(answering, request, '', values);
      printJson(template, tensors, false);
      times.parse.push(parsed - start);
      times.submit.push(submitted - parsed);
      times.wait.push(answered - submitted);
      times.encode.push(nowUs() - answered);
    }
    const after = model.stats();
    const count = after.runsOnLanes - before.runsOnLanes || 1;
    const queue = (after.queueUs - before.queueUs) / count;
    const run = (after.runUs - before.runUs) / count;
    // A mean, as what is taken off.
    const wait = times.wait.reduce((sum, us) => sum + us, 0) / REQUESTS;
    return [
      { name: 'parse: the request, binary', us: median(times.parse) },
      { name: 'gather: check and copy in', us: median(times.submit) },
      { name: 'queue: until a lane takes it', us: queue },
      { name: 'run', us: run },
      { name: 'scatter: wake and copy out', us: Math.max(0, wait - queue - run) },
      { name: 'encode: the answer, binary', us: median(times.encode) },
    ];
  } finally {
    await model.close();
  }
}
