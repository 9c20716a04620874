// The v2 protocol's infer requests and answers, whichever way they travel: which outputs a client asks for,
// and what it gets for them.
//
// Sources: the KServe project's "Open Inference Protocol (v2)"; Triton's "Binary Tensor Data",
// "System Shared Memory" and "Classification" extension documents.
import { InvalidInputError } from '../../errors.js';
import { isTensor, type DType, type Tensor, type Value } from '../../tensor.js';
import { classify, type Answering } from './classification.js';
import { bytesOf } from './datatypes.js';
import type { Parameters } from './parameters.js';
import { spanOf, type Regions, type RegionSpan } from './spans.js';

/** An output as the request asks for it. */
export interface RequestedOutput {
  name: string;
  /** As raw bytes rather than in the JSON. */
  binary: boolean;
  /** Where its bytes shall be put; nothing of it is sent then. */
  span?: RegionSpan;
  /** The so many classes of the highest values are sent, instead of the values. */
  classes?: number;
}

export interface InferRequest {
  id?: string;
  inputs: Record<string, Tensor>;
  /** Undefined: all. */
  outputs?: RequestedOutput[];
  /** For outputs that do not say. */
  binaryByDefault: boolean;
  priority?: number;
  timeoutMs?: number;
}

/** An output that a request asks for, by its parameters. Throws InvalidInputError. */
export function requestedOutput(
  name: string,
  parameters: Parameters,
  binaryByDefault: boolean,
  regions: Regions | undefined,
): RequestedOutput {
  const where = `output "${name}"`;
  const binary = parameters['binary_data'];
  const classes = parameters['classification'];
  const span = spanOf(parameters, where, regions);
  if (classes !== undefined && !(Number.isSafeInteger(classes) && (classes as number) >= 0)) {
    throw new InvalidInputError(`${where}: classification must be the number of classes`);
  }
  if (classes && span) {
    throw new InvalidInputError(`${where}: classification and shared memory exclude each other`);
  }
  return {
    name,
    binary: typeof binary === 'boolean' ? binary : binaryByDefault,
    ...(span && { span }),
    ...(classes ? { classes: classes as number } : {}),
  };
}

/** An output as the client gets it. */
export interface AnsweredOutput {
  readonly name: string;
  readonly tensor: Tensor;
  readonly binary: boolean;
  /** Where it was written; then it is not sent. */
  readonly span?: RegionSpan;
}

/**
 * The outputs of a run as the request wants them. Those with a span are in shared memory already.
 *
 * @throws InvalidInputError for an output that the protocol cannot carry
 */
export function answerOutputs(
  answering: Answering,
  request: Pick<InferRequest, 'outputs' | 'binaryByDefault'>,
  values: Readonly<Record<string, Value>>,
): AnsweredOutput[] {
  const wanted: readonly RequestedOutput[] =
    request.outputs ??
    Object.keys(values).map((name) => ({ name, binary: request.binaryByDefault }));
  return wanted.map(({ name, binary, span, classes }) => {
    const value = values[name];
    if (!isTensor(value)) {
      throw new InvalidInputError(
        `output "${name}" is no tensor; the protocol carries tensors only`,
      );
    }
    if (classes) return { name, tensor: classify(answering, name, value, classes), binary };
    if (!span) return { name, tensor: value, binary };
    return { name, tensor: value, binary, span: { ...span, bytes: bytesOf(value).length } };
  });
}

/** An output as the last response had it. */
export interface PlannedOutput {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: readonly number[];
}

/** Whether tensors are those that a response was made for: by name, type and shape, in the same order. */
export function isSameOutput(
  planned: PlannedOutput,
  name: string,
  value: Value | undefined,
): boolean {
  const { dtype, shape, data } = (value ?? {}) as Partial<Tensor>;
  return (
    name === planned.name &&
    dtype === planned.dtype &&
    shape!.length === planned.shape.length &&
    shape!.every((dim, k) => dim === planned.shape[k]) &&
    ArrayBuffer.isView(data)
  );
}
