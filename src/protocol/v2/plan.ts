// Plans: what an infer request's JSON says, kept for the next request that says the same.
//
// A client sends the same JSON with each request of a shape, and only the numbers in it or behind it
// change: reading it costs 3 us and more, finding it again 0.3.
import { arrayAt, arrayIndex, type CarvedJson, type CarvedText } from '../../runtime/json-carve.js';
import { printJson, type JsonTemplate } from '../../runtime/json-print.js';
import type { DType, Tensor } from '../../tensor.js';
import type { InferResponse } from './rest.js';
import type { InferRequest } from './request.js';

interface PlannedInput {
  name: string;
  dtype: Exclude<DType, 'string'>;
  shape: readonly number[];
  /** The array in the JSON; undefined where the numbers are binary. */
  array: number | undefined;
  start: number;
  end: number;
}

export interface InferPlan {
  /** The request without its data. */
  readonly request: InferRequest;
  readonly inputs: readonly PlannedInput[];
  /** How the last response was made, and the shapes it is for. */
  response:
    | {
        shapes: readonly (readonly number[])[];
        owner: object;
        template: JsonTemplate;
        printed: readonly string[];
      }
    | undefined;
}

/** A plan for one request alone. */
export function planOnce(request: InferRequest): InferPlan {
  return { request: { ...request, inputs: {} }, inputs: [], response: undefined };
}

/**
 * The plan of a request that was decoded: any other with the same envelope and as many bytes behind it is
 * as good. Undefined when the JSON carries strings or an id of its own.
 */
export function planOf({ value }: CarvedJson, request: InferRequest): InferPlan | undefined {
  if (request.id !== undefined || Object.hasOwn(request.inputs, '__proto__')) return undefined;
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
  return { request: { ...request, inputs: {} }, inputs, response: undefined };
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

function sameShapes(a: readonly (readonly number[])[], values: readonly Tensor[]): boolean {
  return (
    a.length === values.length &&
    values.every(
      ({ shape }, i) => shape.length === a[i]!.length && shape.every((dim, k) => dim === a[i]![k]),
    )
  );
}

/**
 * The whole response to a planned request.
 *
 * @param owner the model that answers: another one's response is not its own
 * @param encode makes the response for the outputs
 * @throws InvalidInputError for a number that JSON cannot say
 */
export function plannedResponse(
  plan: InferPlan,
  owner: object,
  values: Readonly<Record<string, Tensor>>,
  encode: () => InferResponse,
): PlannedResponse {
  const tensors = plan.request.outputs
    ? plan.request.outputs.map(({ name }) => values[name]!)
    : Object.values(values);
  const { response } = plan;
  if (response?.owner === owner && sameShapes(response.shapes, tensors)) {
    const { template, printed } = response;
    const head = printJson(
      template,
      printed.map((name) => values[name]!),
      false,
    );
    if (printed.length === tensors.length) return { head, binary: [] };
    const names = plan.request.outputs?.map(({ name }) => name) ?? Object.keys(values);
    return {
      head,
      binary: names
        .filter((name) => !printed.includes(name))
        .map((name) => {
          const view = values[name]!.data as Float32Array;
          return new Uint8Array(view.buffer as ArrayBuffer, view.byteOffset, view.byteLength);
        }),
    };
  }
  const { binary, template, tensors: inJson, printed, repeats } = encode();
  // With strings in it, or with what is no tensor, it is not the same next time.
  if (repeats && tensors.every((tensor) => ArrayBuffer.isView(tensor.data))) {
    plan.response = { shapes: tensors.map(({ shape }) => [...shape]), owner, template, printed };
  }
  return { head: printJson(template, inJson, false), binary };
}
