// The v2 protocol's infer requests and answers, whichever way they travel: what parameters mean, where
// shared memory lies, what a client gets for an output.
//
// Sources: the KServe project's "Open Inference Protocol (v2)"; Triton's "Parameters", "Schedule Policy",
// "System Shared Memory" and "Classification" extension documents.
import { InvalidInputError } from '../../errors.js';
import { bytesPerElement, isTensor, type DType, type Tensor, type Value } from '../../tensor.js';
import { bytesOf, datatypeOf, elementsFromBinary } from './datatypes.js';

/** Parameters as plain values, whichever way they came. */
export type Parameters = Readonly<Record<string, unknown>>;

/** What a server without shared memory says. */
export const NO_SHARED_MEMORY =
  'shared memory is not available on this server: it was started without --allow-shared-memory';

/** A span of a shared memory region, as a request names it. */
export interface RegionSpan {
  region: string;
  offset: number;
  bytes: number;
}

/** The bytes of a span. Throws InvalidInputError for a region that is not there, or too small. */
export type Regions = (span: RegionSpan) => Uint8Array;

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
  /** Where spans lie; undefined on a server without shared memory. */
  regions?: Regions | undefined;
}

/** What the answer wants to know of the model. */
export interface Answering {
  readonly name: string;
  readonly version: string;
  readonly config?: {
    readonly maxBatchSize: number;
    /** Names of classes by output. */
    readonly classNames: Readonly<Record<string, readonly string[]>>;
  };
  readonly model?: {
    readonly outputs: readonly { name: string; shape: readonly (number | string)[] }[];
  };
}

/** What a request's parameters say to the scheduler. */
export function schedulingOf(parameters: Parameters): { priority?: number; timeoutMs?: number } {
  const priority = parameters['priority'];
  const timeoutUs = parameters['timeout'];
  return {
    // 0 is Triton's "default"; what is beyond our levels is the last of them.
    ...(Number.isInteger(priority) &&
      (priority as number) > 0 && { priority: Math.min(priority as number, 8) }),
    ...(typeof timeoutUs === 'number' && timeoutUs > 0 && { timeoutMs: timeoutUs / 1000 }),
  };
}

/**
 * The span that a tensor's parameters name, if any.
 *
 * @throws InvalidInputError for parameters that are none, or where the server has no shared memory
 */
export function spanOf(
  parameters: Parameters,
  where: string,
  regions: Regions | undefined,
): RegionSpan | undefined {
  const region = parameters['shared_memory_region'];
  if (region === undefined) return undefined;
  if (!regions) throw new InvalidInputError(`${where}: ${NO_SHARED_MEMORY}`);
  const whole = (name: string, otherwise?: number): number => {
    const value = parameters[name] ?? otherwise;
    if (Number.isSafeInteger(value) && (value as number) >= 0) return value as number;
    throw new InvalidInputError(`${where}: ${name} must be a whole number of bytes`);
  };
  if (typeof region !== 'string' || region === '') {
    throw new InvalidInputError(`${where}: shared_memory_region must be a region's name`);
  }
  return {
    region,
    offset: whole('shared_memory_offset', 0),
    bytes: whole('shared_memory_byte_size'),
  };
}

/**
 * An input's elements where shared memory has them.
 *
 * @throws InvalidInputError for a span that is not there or does not fit the shape
 */
export function elementsInSpan(
  span: RegionSpan,
  regions: Regions,
  dtype: DType,
  count: number,
  where: string,
): Tensor['data'] {
  let bytes: Uint8Array;
  try {
    bytes = regions(span);
  } catch (cause) {
    throw new InvalidInputError(`${where}: ${(cause as Error).message}`, { cause });
  }
  return elementsFromBinary(dtype, bytes, count, where);
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
 * The outputs of a run as the request wants them; those for shared memory are written there.
 *
 * @throws InvalidInputError for an output that the protocol cannot carry, or a span that is too small
 */
export function answerOutputs(
  answering: Answering,
  request: Pick<InferRequest, 'outputs' | 'binaryByDefault' | 'regions'>,
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
    const bytes = bytesOf(value);
    if (bytes.length > span.bytes) {
      throw new InvalidInputError(
        `output "${name}" has ${bytes.length} bytes, shared_memory_byte_size is ${span.bytes}`,
      );
    }
    request.regions!({ ...span, bytes: bytes.length }).set(bytes);
    return { name, tensor: value, binary, span: { ...span, bytes: bytes.length } };
  });
}

/** A span as the answer's parameters name it. */
export function spanParameters({ region, offset, bytes }: RegionSpan): Record<string, unknown> {
  return {
    shared_memory_region: region,
    ...(offset > 0 && { shared_memory_offset: offset }),
    shared_memory_byte_size: bytes,
  };
}

/**
 * The classes with the highest values, of each row or of the whole: `value:index` or `value:index:name`.
 *
 * Source: Triton's "Classification Extension".
 */
function classify(answering: Answering, name: string, tensor: Tensor, most: number): Tensor {
  const { data, dtype, shape } = tensor;
  if (dtype === 'string' || dtype === 'bool' || dtype === 'bfloat16') {
    throw new InvalidInputError(
      `output "${name}" is ${datatypeOf(dtype)}, which has no highest values for a classification`,
    );
  }
  if (dtype === 'float16' && data instanceof Uint16Array) {
    throw new InvalidInputError(`output "${name}": this Node has no FP16 for a classification`);
  }
  const numbers = data as ArrayLike<number | bigint>;
  const declared = answering.model?.outputs.find((output) => output.name === name)?.shape[0];
  const byRow =
    shape.length > 1 && ((answering.config?.maxBatchSize ?? 0) > 0 || typeof declared === 'string');
  const rows = byRow ? shape[0]! : 1;
  const columns = rows === 0 ? 0 : numbers.length / rows;
  const classes = Math.min(most, columns);
  const names = answering.config?.classNames[name];
  const isFloat = bytesPerElement(dtype) > 0 && dtype.startsWith('float');
  const out: string[] = [];
  for (let row = 0; row < rows; row++) {
    const start = row * columns;
    for (const index of highest(numbers, start, columns, classes)) {
      const value = numbers[start + index]!;
      const text = isFloat ? fixed(value as number) : String(value);
      const label = names?.[index];
      out.push(label === undefined ? `${text}:${index}` : `${text}:${index}:${label}`);
    }
  }
  return { dtype: 'string', shape: byRow ? [rows, classes] : [classes], data: out };
}

/** As C's %f has it, which the protocol's examples show. */
function fixed(value: number): string {
  if (!Number.isFinite(value)) return value > 0 ? 'inf' : value < 0 ? '-inf' : 'nan';
  return Math.abs(value) < 1e21 ? value.toFixed(6) : `${BigInt(value)}.000000`;
}

const FEW = 32;

/** Indices of the `most` highest of a row, highest first, the earlier of two that are equal; NaN last. */
function highest(
  values: ArrayLike<number | bigint>,
  start: number,
  count: number,
  most: number,
): number[] {
  const above = (a: number, b: number): boolean => {
    const [x, y] = [values[start + a]!, values[start + b]!];
    return x > y || (y !== y && x === x);
  };
  if (most > FEW) {
    const all = Array.from({ length: count }, (_, i) => i);
    return all.sort((a, b) => (above(a, b) ? -1 : above(b, a) ? 1 : a - b)).slice(0, most);
  }
  // A few of many: insertion into a short list beats sorting the whole.
  const best: number[] = [];
  for (let i = 0; i < count; i++) {
    if (best.length === most && !above(i, best[most - 1]!)) continue;
    let at = best.length === most ? most - 1 : best.length;
    while (at > 0 && above(i, best[at - 1]!)) {
      best[at] = best[at - 1]!;
      at--;
    }
    best[at] = i;
  }
  return best;
}
