// The v2 protocol over gRPC: ModelInferRequest and ModelInferResponse, whose tensors stay where the
// message has them. Field numbers: schema/inference.proto.
import { InvalidInputError } from '../../errors.js';
import {
  bytesPerElement,
  countElements,
  type DataByDType,
  type DType,
  type Tensor,
  type Value,
} from '../../tensor.js';
import { elementsFromContents } from './grpc-contents.js';
import {
  checkCount,
  LENGTH,
  MOST_DIMENSIONS,
  MOST_ENTRIES,
  ProtoReader,
  ProtoWriter,
  varintBytes,
  writeVarint,
} from '../../protobuf.js';
import {
  answerOutputs,
  isSameOutput,
  requestedOutput,
  type InferRequest,
  type PlannedOutput,
  type RequestedOutput,
} from './request.js';
import { elementsInSpan, spanOf, spanParameters, type Regions } from './spans.js';
import { schedulingOf, type Parameters } from './parameters.js';
import { type Answering } from './classification.js';
import { bytesOf, datatypeOf, dtypeOfName, stringsFromBinary } from './datatypes.js';
import { UNPREPARED, type Plan } from '../plan.js';

/** A request as it came: the model that it names, and what it asks. */
export interface GrpcInferRequest {
  model: string;
  /** Undefined: the newest. */
  version: string | undefined;
  readonly request: InferRequest;
  /** The client wants to be told that a response is the last of its request. */
  wantsFinal: boolean;
}

function readParameter(reader: ProtoReader): unknown {
  let value: unknown;
  while (reader.next()) {
    if (reader.field === 1) value = reader.bool();
    else if (reader.field === 2) value = reader.int64();
    else if (reader.field === 3) value = reader.string();
    else if (reader.field === 4) value = reader.double();
    else if (reader.field === 5) value = reader.uint64();
    else reader.skip();
  }
  return value;
}

/** One entry of a map<string, InferParameter>. */
function readEntry(reader: ProtoReader, into: Map<string, unknown>): void {
  let key = '';
  let value: unknown;
  while (reader.next()) {
    if (reader.field === 1) key = reader.string();
    else if (reader.field === 2) value = readParameter(reader.message());
    else reader.skip();
  }
  into.set(key, value);
  checkCount(into.size, MOST_ENTRIES, 'parameters');
}

/** Not a plain assignment: a key is the client's, and may be "__proto__". */
function plain(parameters: Map<string, unknown>): Parameters {
  return Object.fromEntries(parameters);
}

interface NamedInput {
  name: string;
  datatype: string;
  shape: number[];
  parameters: Map<string, unknown>;
  contents: ProtoReader | undefined;
}

function readInput(reader: ProtoReader): NamedInput {
  const input: NamedInput = {
    name: '',
    datatype: '',
    shape: [],
    parameters: new Map(),
    contents: undefined,
  };
  while (reader.next()) {
    if (reader.field === 1) input.name = reader.string();
    else if (reader.field === 2) input.datatype = reader.string();
    else if (reader.field === 3) {
      reader.repeated((numbers) => {
        input.shape.push(numbers.rawSafeInt64());
        checkCount(input.shape.length, MOST_DIMENSIONS, 'dimensions in a shape');
      });
    } else if (reader.field === 4) readEntry(reader.message(), input.parameters);
    else if (reader.field === 5) {
      // Protocol buffers would merge them; no client writes two.
      if (input.contents) throw new InvalidInputError(`input "${input.name}": contents twice`);
      input.contents = reader.message();
    } else reader.skip();
  }
  return input;
}

/** What of a ModelInferRequest is the same in every request of a client that sends its tensors raw. */
export interface GrpcPlan extends GrpcInferRequest, Plan {
  readonly request: InferRequest;
  /** Inputs in the order of their raw contents. */
  readonly rawInputs: readonly {
    name: string;
    dtype: Exclude<DType, 'string'>;
    shape: readonly number[];
  }[];
  /** How the last response began, and whose it was and of which shapes. */
  response: { owner: object; outputs: readonly PlannedOutput[]; head: Buffer } | undefined;
}

/** A request, cut into what repeats and what does not. */
interface CutRequest {
  /** The same for requests that differ in id and in the bytes of their tensors; '' where it is not. */
  key: string;
  id: string | undefined;
  raw: Uint8Array[];
}

const NO_BYTES = new Uint8Array(0);

/** Longer heads are not worth keeping. */
const MAX_HEAD_BYTES = 2048;

/** Looks through the fields of a ModelInferRequest without reading what is in them. */
export function cutInferRequest(message: Buffer): CutRequest {
  const reader = new ProtoReader(message);
  const raw: Uint8Array[] = [];
  let id: string | undefined;
  let idFrom = -1;
  let idTo = -1;
  let head = message.length;
  let ordered = true;
  for (let from = 0; reader.next(); from = reader.at) {
    if (reader.field === 7 && reader.type === LENGTH) {
      if (raw.length === 0) head = from;
      raw.push(reader.bytes());
      checkCount(raw.length, MOST_ENTRIES, 'raw_input_contents');
    } else {
      if (raw.length > 0) ordered = false;
      if (reader.field === 3 && reader.type === LENGTH) {
        ordered &&= id === undefined;
        idFrom = from;
        id = reader.string();
        idTo = reader.at;
      } else {
        reader.skip();
      }
    }
  }
  const isShort = ordered && raw.length > 0 && head <= MAX_HEAD_BYTES;
  if (!isShort) return { key: '', id, raw };
  let key =
    idFrom < 0
      ? message.toString('latin1', 0, head)
      : message.toString('latin1', 0, idFrom) + message.toString('latin1', idTo, head);
  for (const bytes of raw) key += `,${bytes.length}`;
  return { key, id, raw };
}

/**
 * Reads a ModelInferRequest.
 *
 * @param regions where shared memory lies; undefined where it is not allowed
 * @throws InvalidInputError naming the input and what was expected
 */
export function decodeGrpcInfer(message: Buffer, regions?: Regions): GrpcPlan {
  const reader = new ProtoReader(message);
  let model = '';
  let version = '';
  let id = '';
  const parameters = new Map<string, unknown>();
  const named: NamedInput[] = [];
  const wanted: { name: string; parameters: Map<string, unknown> }[] = [];
  const raw: Uint8Array[] = [];
  while (reader.next()) {
    if (reader.field === 1) model = reader.string();
    else if (reader.field === 2) version = reader.string();
    else if (reader.field === 3) id = reader.string();
    else if (reader.field === 4) readEntry(reader.message(), parameters);
    else if (reader.field === 5) {
      named.push(readInput(reader.message()));
      checkCount(named.length, MOST_ENTRIES, 'inputs');
    } else if (reader.field === 6) {
      const output = { name: '', parameters: new Map<string, unknown>() };
      const fields = reader.message();
      while (fields.next()) {
        if (fields.field === 1) output.name = fields.string();
        else if (fields.field === 2) readEntry(fields.message(), output.parameters);
        else fields.skip();
      }
      wanted.push(output);
      checkCount(wanted.length, MOST_ENTRIES, 'outputs');
    } else if (reader.field === 7) {
      raw.push(reader.bytes());
      checkCount(raw.length, MOST_ENTRIES, 'raw_input_contents');
    } else reader.skip();
  }
  const inputs = Object.create(null) as Record<string, Tensor>;
  const rawInputs: GrpcPlan['rawInputs'][number][] = [];
  let next = 0;
  for (const { name, datatype, shape, parameters: own, contents } of named) {
    const where = `input "${name}"`;
    if (Object.hasOwn(inputs, name)) throw new InvalidInputError(`${where} is there twice`);
    const dtype = dtypeOfName(datatype, where);
    let count: number;
    try {
      count = countElements(shape);
    } catch (cause) {
      throw new InvalidInputError(`${where}: ${(cause as Error).message}`, { cause });
    }
    const span = spanOf(plain(own), where, regions);
    let data: DataByDType[DType];
    if (span) {
      if (contents) {
        throw new InvalidInputError(`${where}: shared memory and contents exclude each other`);
      }
      data = elementsInSpan(span, regions!, dtype, count, where);
    } else if (contents) {
      if (raw.length > 0) {
        throw new InvalidInputError(
          `${where}: contents cannot be given beside raw_input_contents, which has all inputs or none`,
        );
      }
      // The room is for as many elements as the message has bytes at most.
      if (count > message.length) {
        throw new InvalidInputError(
          `${where}: the shape holds ${count} elements, more than the message has bytes`,
        );
      }
      data = elementsFromContents(contents, dtype, count, where);
    } else {
      const bytes = raw[next++];
      if (!bytes && count > 0) {
        throw new InvalidInputError(`${where}: no contents and no raw_input_contents came for it`);
      }
      data = rawElements(bytes ?? new Uint8Array(0), dtype, count, where);
      if (dtype !== 'string') rawInputs.push({ name, dtype, shape });
    }
    inputs[name] = { dtype, shape, data };
  }
  if (next < raw.length) {
    throw new InvalidInputError(
      `raw_input_contents has ${raw.length} entries, for ${next} inputs without contents of their own`,
    );
  }
  const outputs = wanted.map(({ name, parameters: own }): RequestedOutput => {
    if (name === '') throw new InvalidInputError('outputs: a name is missing');
    return requestedOutput(name, plain(own), true, regions);
  });
  const all = plain(parameters);
  return {
    ...UNPREPARED,
    model,
    version: version === '' ? undefined : version,
    request: {
      ...(id !== '' && { id }),
      inputs,
      ...(outputs.length > 0 && { outputs }),
      binaryByDefault: true,
      ...schedulingOf(all),
    },
    wantsFinal: all['triton_enable_empty_final_response'] === true,
    // Only where every input is raw can another request be read by its head alone.
    rawInputs:
      rawInputs.length === named.length && !Object.hasOwn(inputs, '__proto__') ? rawInputs : [],
    response: undefined,
  };
}

/** Raw bytes as elements, in place whatever the address: for Model.start(). */
function rawElements(
  bytes: Uint8Array,
  dtype: DType,
  count: number,
  where: string,
): DataByDType[DType] {
  if (dtype === 'string') return stringsFromBinary(bytes, count, where);
  const size = count * bytesPerElement(dtype);
  if (bytes.length !== size) {
    throw new InvalidInputError(
      `${where}: the shape needs ${size} bytes of ${datatypeOf(dtype)}, ${bytes.length} came`,
    );
  }
  return bytes;
}

/** The inputs of another request with the same head, in place. */
export function plannedGrpcInputs(
  { rawInputs }: GrpcPlan,
  raw: readonly Uint8Array[],
): Record<string, Tensor> {
  const inputs: Record<string, Tensor> = {}; // as v2-plan.ts has it
  for (let i = 0; i < rawInputs.length; i++) {
    const { name, dtype, shape } = rawInputs[i]!;
    inputs[name] = { dtype, shape, data: raw[i] ?? NO_BYTES };
  }
  return inputs;
}

/** A ModelInferResponse up to its id and raw contents. */
function responseHead(answering: Answering, outputs: ReturnType<typeof answerOutputs>): Buffer {
  const writer = new ProtoWriter().string(1, answering.name).string(2, answering.version);
  for (const { name, tensor, span } of outputs) {
    const output = new ProtoWriter()
      .string(1, name)
      .string(2, datatypeOf(tensor.dtype))
      .packed(3, tensor.shape);
    for (const [key, value] of Object.entries(span ? spanParameters(span) : {})) {
      const parameter = new ProtoWriter();
      if (typeof value === 'number') parameter.uint(2, value);
      else parameter.string(3, value as string);
      output.message(4, new ProtoWriter().string(1, key).message(2, parameter));
    }
    writer.message(5, output);
  }
  return writer.finish();
}

function finalResponse(isFinal: boolean): Buffer {
  const parameter = new ProtoWriter().bool(1, isFinal);
  const entry = new ProtoWriter().string(1, 'triton_final_response').message(2, parameter);
  return new ProtoWriter().message(4, entry).finish();
}

const FINAL = finalResponse(true);
const NOT_FINAL = finalResponse(false);

/** The response that says that the parts were all, for who asked to be told; undefined for others. */
export function encodeGrpcEnd(
  { wantsFinal }: GrpcPlan,
  { name, version }: Answering,
  id: string,
): Buffer | undefined {
  if (!wantsFinal) return undefined;
  const head = new ProtoWriter().string(1, name).string(2, version);
  if (id !== '') head.string(3, id);
  return Buffer.concat([head.finish(), FINAL]);
}

/** Where a response stands among those to one request. */
export type ResponseEnd = 'only' | 'part' | 'last';

/**
 * Writes a ModelInferResponse: tensors are copied into the message once.
 *
 * @param id of the request; '' for none
 * @param end whether more responses to the request follow
 * @throws InvalidInputError for an output that the protocol cannot carry
 */
export function encodeGrpcInfer(
  plan: GrpcPlan,
  owner: Answering,
  id: string,
  values: Readonly<Record<string, Value>>,
  end: ResponseEnd = 'only',
): Buffer {
  const outputs = answerOutputs(owner, plan.request, values);
  let head: Buffer;
  const known = plan.response;
  const isKnown =
    known?.owner === owner &&
    known.outputs.length === outputs.length &&
    outputs.every(({ name, tensor }, i) => isSameOutput(known.outputs[i]!, name, tensor));
  if (isKnown) {
    head = known.head;
  } else {
    head = responseHead(owner, outputs);
    const repeats = outputs.every(({ tensor, span }) => !span && tensor.dtype !== 'string');
    if (repeats) {
      const planned = outputs.map(({ name, tensor: { dtype, shape } }) => ({
        name,
        dtype,
        shape: [...shape],
      }));
      plan.response = { owner, outputs: planned, head };
    }
  }
  const idBytes = id === '' ? NO_BYTES : Buffer.from(id, 'utf8');
  const raws = outputs.map(({ tensor, span }) => (span ? NO_BYTES : bytesOf(tensor)));
  // Raw contents are for each output, or for none.
  const anyRaw = outputs.some(({ span }) => !span);
  const final = plan.wantsFinal ? (end === 'part' ? NOT_FINAL : FINAL) : NO_BYTES;
  let total = head.length + final.length;
  if (idBytes.length > 0) total += 1 + varintBytes(idBytes.length) + idBytes.length;
  if (anyRaw) for (const raw of raws) total += 1 + varintBytes(raw.length) + raw.length;
  const out = Buffer.allocUnsafe(total);
  out.set(head, 0);
  let at = head.length;
  if (idBytes.length > 0) {
    out[at++] = (3 << 3) | LENGTH;
    at = writeVarint(out, at, idBytes.length);
    out.set(idBytes, at);
    at += idBytes.length;
  }
  out.set(final, at);
  at += final.length;
  if (anyRaw) {
    for (const raw of raws) {
      out[at++] = (6 << 3) | LENGTH;
      at = writeVarint(out, at, raw.length);
      out.set(raw, at);
      at += raw.length;
    }
  }
  return out;
}

/** A ModelStreamInferResponse around a response. */
export function encodeStreamResponse(response: Buffer): Buffer {
  return new ProtoWriter().bytes(2, response).finish();
}

/** A ModelStreamInferResponse for a request that failed: the error, and whose it is. */
export function encodeStreamError(message: string, id: string): Buffer {
  const writer = new ProtoWriter().string(1, message);
  if (id !== '') writer.message(2, new ProtoWriter().string(3, id));
  return writer.finish();
}
