// Plans: what an infer request's JSON says, kept for the next request that says the same.
//
// A client sends the same JSON with each request of a shape, and only the numbers in it or behind it
// change: reading it costs 3 us and more, finding it again 0.3.
import { arrayAt, arrayIndex, type CarvedJson, type CarvedText } from '../../runtime/json-carve.js';
import { printJson, type JsonTemplate } from '../../runtime/json-print.js';
import type { DType, Tensor } from '../../tensor.js';
import type { Values } from '../../types/servable.js';
import { UNPREPARED, type Plan } from '../plan.js';
import type { Answering } from './classification.js';
import { encodeInferResponse } from './rest.js';
import { isSameOutput, type InferRequest, type PlannedOutput } from './request.js';

interface PlannedInput {
  name: string;
  dtype: Exclude<DType, 'string'>;
  shape: readonly number[];
  /** The array in the JSON; undefined where the numbers are binary. */
  array: number | undefined;
  start: number;
  end: number;
}

export interface InferPlan extends Plan {
  /** The request without its data and its id. */
  readonly request: InferRequest;
  readonly inputs: readonly PlannedInput[];
  /** How the last response was made, and the shapes it is for. */
  response:
    | {
        outputs: readonly PlannedOutput[];
        owner: object;
        template: JsonTemplate;
        /** Names of the outputs whose numbers are in the JSON, in its order. */
        printed: readonly string[];
      }
    | undefined;
}

function planWith(request: InferRequest, inputs: readonly PlannedInput[]): InferPlan {
  const { id: _id, ...shape } = request;
  return { ...UNPREPARED, request: { ...shape, inputs: {} }, inputs, response: undefined };
}

/** A plan for one request alone. */
export function planOnce(request: InferRequest): InferPlan {
  return planWith(request, []);
}

/**
 * The plan of a request that was decoded: any other with the same envelope and as many bytes after it is
 * as good. Undefined when the JSON carries strings.
 */
export function planOf({ value }: CarvedJson, request: InferRequest): InferPlan | undefined {
  if (Object.hasOwn(request.inputs, '__proto__')) return undefined;
  const listed = (
    value as { inputs: { name: string; data?: unknown; parameters?: Record<string, unknown> }[] }
  ).inputs;
  const inputs: PlannedInput[] = [];
  let at = 0;
  for (const { name, data, parameters } of listed) {
    const { dtype, shape } = request.inputs[name]!;
    if (dtype === 'string') return undefined;
    const size = parameters?.['binary_data_size'];
    const array = arrayIndex(data);
    if (typeof size !== 'number' && array === undefined) return undefined;
    const bytes = typeof size === 'number' ? size : 0;
    inputs.push({
      name,
      dtype,
      shape,
      array,
      start: at,
      end: at + bytes,
    });
    at += bytes;
  }
  return planWith(request, inputs);
}

/**
 * The inputs of another request by the plan, for Model.start(): data behind the JSON is raw bytes, and
 * arrays in it are spans of its text.
 */
export function plannedInputs(
  plan: InferPlan,
  json: CarvedText | undefined,
  binary: Uint8Array,
): Record<string, Tensor> {
  // An object as usual: one without a prototype is a dictionary, which costs each request.
  const inputs: Record<string, Tensor> = {};
  for (const { name, dtype, shape, array, start, end } of plan.inputs) {
    const data =
      array === undefined
        ? binary.subarray(start, end)
        : (arrayAt(json!, array) as unknown as Float32Array);
    inputs[name] = { dtype, shape, data };
  }
  return inputs;
}

/** A response's JSON, and the tensors behind it. */
export interface PlannedResponse {
  readonly head: Buffer;
  readonly binary: readonly Uint8Array[];
}

/**
 * The whole response to a planned request.
 *
 * @param owner the servable that answers: another one's response is not its own
 * @param id of the request; '' for none
 * @throws InvalidInputError for a number that JSON cannot say
 */
export function plannedResponse(
  plan: InferPlan,
  owner: Answering,
  id: string,
  values: Values,
): PlannedResponse {
  const names = plan.request.outputs?.map(({ name }) => name) ?? Object.keys(values);
  const { response } = plan;
  if (
    response?.owner === owner &&
    response.outputs.length === names.length &&
    response.outputs.every((output, i) => isSameOutput(output, names[i]!, values[names[i]!]))
  ) {
    const { template, printed } = response;
    const inJson = printed.map((name) => values[name] as Tensor);
    const head = withId(id, printJson(template, inJson, false));
    if (printed.length === names.length) return { head, binary: NO_PARTS };
    return {
      head,
      binary: names
        .filter((name) => !printed.includes(name))
        .map((name) => {
          const view = (values[name] as Tensor).data as Float32Array;
          return new Uint8Array(view.buffer as ArrayBuffer, view.byteOffset, view.byteLength);
        }),
    };
  }
  const encoded = encodeInferResponse(owner, plan.request, '', values);
  const { binary, template, tensors: inJson, printed, repeats } = encoded;
  const all = names.map((name) => values[name] as Tensor);
  // With strings in it, or with what is no tensor, it is not the same next time.
  if (repeats && all.every((tensor) => ArrayBuffer.isView(tensor?.data))) {
    const outputs = all.map(({ dtype, shape }, i) => ({
      name: names[i]!,
      dtype,
      shape: [...shape],
    }));
    plan.response = { outputs, owner, template, printed };
  }
  return { head: withId(id, printJson(template, inJson, false)), binary };
}

const NO_PARTS: readonly Uint8Array[] = [];

/** A response's JSON with the request's id: it differs with every request, so no template has it. */
function withId(id: string, head: Buffer): Buffer {
  if (id === '') return head;
  return Buffer.concat([Buffer.from(`{"id":${JSON.stringify(id)},`), head.subarray(1)]);
}
