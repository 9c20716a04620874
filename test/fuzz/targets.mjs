// What is fuzzed: each codec of bytes from outside. A target throws InvalidInputError for what is wrong;
// anything else that it throws is a finding, and so is what takes longer than it should.
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import {
  ArraySpan,
  carve,
  parseCarved,
  parseEnvelope,
  parseNumbers,
} from '../../dist/runtime/json-carve.js';
import { parseConfig, parseOverride } from '../../dist/repository/config/read.js';
import { InvalidInputError } from '../../dist/errors.js';
import { ProtoWriter } from '../../dist/protobuf.js';
import { decodeGrpcPredict, encodeGrpcPredict, tensorProto } from '../../dist/protocol/tfs/grpc.js';
import { decodeExamples } from '../../dist/protocol/tfs/examples.js';
import { decodePredict, encodePredict } from '../../dist/protocol/tfs/rest.js';
import { generatePlan } from '../../dist/protocol/v2/generate.js';
import {
  cutInferRequest,
  decodeGrpcInfer,
  encodeGrpcInfer,
  plannedGrpcInputs,
} from '../../dist/protocol/v2/grpc.js';
import { decodeIndexRequest, decodeLoadRequest } from '../../dist/protocol/v2/control.js';
import { planOf, plannedInputs } from '../../dist/protocol/v2/plan.js';
import { changeLogSettings, defaultLogSettings } from '../../dist/protocol/v2/log-settings.js';
import { decodeRegisterRequest } from '../../dist/protocol/v2/spans.js';
import { bytesOf } from '../../dist/protocol/v2/datatypes.js';
import {
  decodeInferRequest,
  decodeRawRequest,
  encodeInferResponse,
} from '../../dist/protocol/v2/rest.js';

const model = { name: 'm', version: '1' };
const dtypes = [
  'float32',
  'int64',
  'string',
  'bool',
  'uint8',
  'float16',
  'float64',
  'uint64',
  'int32',
];
const inputs = dtypes.map((dtype, i) => ({
  name: `x${i}`,
  kind: i === 8 ? 'optional' : 'tensor',
  dtype,
  shape: i % 3 === 0 ? ['n', 4] : i % 3 === 1 ? ['n'] : [],
}));
const x = [{ name: 'x', kind: 'tensor', dtype: 'float32', shape: ['n', 2] }];

function check(condition, what) {
  if (!condition) throw new Error(what);
}

/** What a tensor says of itself must be so: native code takes it at its word. */
function checkTensors(tensors, raw) {
  for (const [name, { dtype, shape, data }] of Object.entries(tensors)) {
    const count = shape.reduce((product, dim) => product * dim, 1);
    check(
      shape.every((dim) => Number.isSafeInteger(dim) && dim >= 0),
      `${name}: shape ${shape}`,
    );
    const elements = raw && data instanceof Uint8Array ? undefined : data.length;
    check(
      elements === undefined || elements === count,
      `${name}: ${elements} of ${count} elements`,
    );
    if (dtype === 'string')
      check(
        data.every((text) => typeof text === 'string'),
        `${name}: strings`,
      );
    if (dtype === 'bool' && !raw) check(data instanceof Uint8Array, `${name}: bool`);
  }
}

/** What was read, written again and read again, is the same. */
function sameTensors(a, b) {
  for (const [name, tensor] of Object.entries(a)) {
    const other = b[name];
    check(other && other.dtype === tensor.dtype, `${name} changed`);
    check(other.shape.join() === tensor.shape.join(), `${name}: shape changed`);
    check(meaning(other).equals(meaning(tensor)), `${name}: data changed`);
  }
}

/** A byte of a bool is what the client sent, and means no more than zero or not. */
function meaning(tensor) {
  const bytes = Buffer.from(bytesOf(tensor));
  return tensor.dtype === 'bool' ? bytes.map((byte) => Number(byte !== 0)) : bytes;
}

const region = new Uint8Array(new ArrayBuffer(4096));
const regions = ({ region: name, offset, bytes }) => {
  check(Number.isSafeInteger(offset) && Number.isSafeInteger(bytes), 'a span of no numbers');
  check(offset >= 0 && bytes >= 0, 'a negative span');
  if (name !== 'r' || offset + bytes > region.length) throw new InvalidInputError('no such span');
  return region.subarray(offset, offset + bytes);
};

/** Numbers that a planned request leaves in its text, as the run reads them. */
function read(planned) {
  const tensors = Object.entries(planned).map(([name, { dtype, shape, data }]) => {
    if (!(data instanceof ArraySpan)) return [name, { dtype, shape, data }];
    const count = shape.reduce((product, dim) => product * dim, 1);
    return [name, { dtype, shape, data: parseNumbers(data, dtype, count, false, dtype, name) }];
  });
  return Object.fromEntries(tensors);
}

function infer(json, binary) {
  const carved = carve(json);
  const parsed = parseEnvelope(carved);

  const request = decodeInferRequest(parsed, binary, regions);
  checkTensors(request.inputs, false);
  const plan = planOf(parsed, request);
  if (plan) sameTensors(request.inputs, read(plannedInputs(plan, carved, binary)));
  const outputs = Object.fromEntries(Object.entries(request.inputs));
  encodeInferResponse(model, request, request.id ?? '', outputs);
}

const json = (value) => Buffer.from(typeof value === 'string' ? value : JSON.stringify(value));
const floats = (...values) => new Uint8Array(Float32Array.from(values).buffer);

function v2Requests() {
  return [
    { inputs: [{ name: 'x', shape: [1, 2], datatype: 'FP32', data: [1, 2.5] }] },
    {
      id: 'a',
      inputs: [{ name: 'x', shape: [2], datatype: 'INT64', data: [[1], [-5]] }],
      outputs: [{ name: 'x' }],
    },
    {
      inputs: [{ name: 'x', shape: [2], datatype: 'BYTES', data: ['a', 'ü\n'] }],
      parameters: { priority: 1, timeout: 5 },
    },
    {
      inputs: [{ name: 'x', shape: [1], datatype: 'BOOL', data: [true] }],
      outputs: [{ name: 'x', parameters: { classification: 2 } }],
    },
    {
      inputs: [{ name: 'x', shape: [2], datatype: 'UINT8', parameters: { binary_data_size: 2 } }],
      outputs: [{ name: 'x', parameters: { binary_data: true } }],
    },
    {
      inputs: [
        {
          name: 'x',
          shape: [2],
          datatype: 'FP32',
          parameters: {
            shared_memory_region: 'r',
            shared_memory_offset: 8,
            shared_memory_byte_size: 8,
          },
        },
      ],
      outputs: [
        { name: 'x', parameters: { shared_memory_region: 'r', shared_memory_byte_size: 64 } },
      ],
    },
  ].map(json);
}

function grpcRequests() {
  const entry = (key, parameter) => new ProtoWriter().string(1, key).message(2, parameter);
  const input = (datatype, shape) =>
    new ProtoWriter().string(1, 'x').string(2, datatype).packed(3, shape);
  const request = () => new ProtoWriter().string(1, 'm').string(2, '1').string(3, 'id');
  return [
    request()
      .message(5, input('FP32', [1, 2]))
      .bytes(7, floats(1, 2))
      .finish(),
    request()
      .message(5, input('INT8', [2]).message(5, new ProtoWriter().bytes(2, Uint8Array.of(1, 2))))
      .finish(),
    request()
      .message(5, input('FP32', [2]).message(5, new ProtoWriter().bytes(6, floats(1, 2))))
      .finish(),
    request()
      .message(5, input('UINT64', [1]).message(5, new ProtoWriter().uint(5, 2 ** 40)))
      .finish(),
    request()
      .message(5, input('BYTES', [1]).message(5, new ProtoWriter().string(8, 'ab')))
      .finish(),
    request()
      .message(5, input('BYTES', [1]))
      .bytes(7, Uint8Array.of(1, 0, 0, 0, 65))
      .finish(),
    request()
      .message(4, entry('priority', new ProtoWriter().uint(2, 1)))
      .message(
        5,
        input('FP32', [2])
          .message(4, entry('shared_memory_region', new ProtoWriter().string(3, 'r')))
          .message(4, entry('shared_memory_byte_size', new ProtoWriter().uint(2, 8))),
      )
      .message(
        6,
        new ProtoWriter()
          .string(1, 'x')
          .message(2, entry('classification', new ProtoWriter().uint(2, 3))),
      )
      .finish(),
  ];
}

function tfsGrpcRequests() {
  const spec = new ProtoWriter().string(1, 'm').message(2, new ProtoWriter().uint(1, 3));
  const tensors = [
    { dtype: 'float32', shape: [1, 2], data: Float32Array.of(1, 2) },
    { dtype: 'int64', shape: [2], data: BigInt64Array.of(-1n, 5n) },
    { dtype: 'string', shape: [2], data: ['a', 'b'] },
    { dtype: 'bool', shape: [1], data: Uint8Array.of(1) },
    { dtype: 'float16', shape: [1], data: Uint16Array.of(15360) },
    { dtype: 'uint32', shape: [], data: Uint32Array.of(7) },
  ].map(tensorProto);
  tensors.push(
    new ProtoWriter()
      .uint(1, 1)
      .message(2, new ProtoWriter().message(2, new ProtoWriter().uint(1, 2)))
      .bytes(4, floats(1, 2)),
    new ProtoWriter()
      .uint(1, 1)
      .message(2, new ProtoWriter().message(2, new ProtoWriter().uint(1, 5)))
      .bytes(5, floats(7)),
  );
  return tensors.map((tensor) =>
    new ProtoWriter()
      .message(1, spec)
      .message(2, new ProtoWriter().string(1, 'x').message(2, tensor))
      .string(3, 'y')
      .finish(),
  );
}

const withLength = (head, binary) => {
  const prefix = Buffer.alloc(2);
  prefix.writeUInt16BE(head.length);
  return Buffer.concat([prefix, head, binary]);
};

/** Corpora: made here, and what once was a finding, in corpus/<target>/. */
const targets = {
  json: {
    text: true,
    seeds: () => [
      ...v2Requests(),
      json({ ready: true }),
      json({ parameters: { config: '{}', 'file:1/model.onnx': 'AAAA' } }),
      json({ x0: [1, 2, 3, 4], x1: 5, x2: 'a', x3: true, parameters: { x4: 1 } }),
      json({ log_info: false, log_verbose_level: 1 }),
    ],
    run(bytes) {
      const all = [
        () => infer(bytes, new Uint8Array(0)),
        () => generatePlan({}, bytes, inputs),
        () => decodeIndexRequest(parseCarved(bytes).value),
        () => decodeLoadRequest(parseCarved(bytes).value),
        () => changeLogSettings(defaultLogSettings(), parseCarved(bytes).value),
      ];
      return all;
    },
  },
  binary: {
    text: false,
    seeds: () => [
      ...v2Requests().map((head) => withLength(head, Buffer.from([1, 2]))),
      withLength(
        json({
          inputs: [
            { name: 'x', shape: [1, 2], datatype: 'FP32', parameters: { binary_data_size: 8 } },
            { name: 'y', shape: [1], datatype: 'BYTES', parameters: { binary_data_size: 5 } },
          ],
          parameters: { binary_data_output: true },
        }),
        Buffer.concat([floats(1, 2), Buffer.from([1, 0, 0, 0, 65])]),
      ),
      withLength(Buffer.alloc(0), floats(1, 2)),
    ],
    run(bytes) {
      const length = bytes.length < 2 ? 0 : Math.min(bytes.readUInt16BE(0), bytes.length - 2);
      const [head, binary] = [bytes.subarray(2, 2 + length), bytes.subarray(2 + length)];
      return [
        () => {
          const parsed = parseCarved(head);
          const request = decodeInferRequest(parsed, binary, regions);
          checkTensors(request.inputs, false);
          encodeInferResponse(model, request, request.id ?? '', request.inputs);
          const plan = planOf(parsed, request);
          if (plan) checkTensors(plannedInputs(plan, carve(head), binary), true);
        },
        ...inputs.map(
          (input) => () => checkTensors(decodeRawRequest([input], binary).inputs, false),
        ),
      ];
    },
  },
  grpc: {
    text: false,
    seeds: grpcRequests,
    run(bytes) {
      return [
        () => {
          const cut = cutInferRequest(bytes);
          const plan = decodeGrpcInfer(bytes, regions);
          checkTensors(plan.request.inputs, true);
          if (cut.key !== '' && plan.rawInputs.length > 0) {
            check((cut.id ?? '') === (plan.request.id ?? ''), 'the id changed');
            const again = plannedGrpcInputs(plan, cut.raw);
            for (const [name, { data }] of Object.entries(again)) {
              check(
                Buffer.from(data).equals(Buffer.from(bytesOf(plan.request.inputs[name]))),
                name,
              );
            }
          }
          const outputs = Object.fromEntries(
            Object.entries(plan.request.inputs).map(([name, tensor]) => [name, tensor]),
          );
          plan.request.outputs = plan.request.outputs?.map((output) => ({
            ...output,
            classes: undefined,
          }));
          encodeGrpcInfer(plan, model, plan.request.id ?? '', outputs);
        },
      ];
    },
  },
  'tfs-json': {
    text: true,
    seeds: () => [
      json({
        instances: [
          [1, 2],
          [3, 4],
        ],
      }),
      json('{"instances":[{"x":[1,NaN]},{"x":[3,-Infinity]}],"signature_name":"serving_default"}'),
      json({ inputs: { x: [[1, 2]] } }),
      json({ inputs: [[1, 2]] }),
      json({ instances: ['a', { b64: 'aGk=' }] }),
      json({ instances: [{ x0: [1, 2, 3, 4], x1: 5, x2: 'a', x3: true, x4: 1 }] }),
      json({ context: { x: [1, 2] }, examples: [{ x: [3, 4] }, {}] }),
    ],
    run(bytes) {
      const predict = (metadata) => () => {
        const { inputs: tensors, byRows } = decodePredict(bytes, metadata);
        checkTensors(tensors, false);
        encodePredict(tensors, byRows);
        encodePredict(tensors, false);
      };
      return [
        predict(x),
        predict(inputs),
        ...inputs.map((input) => predict([input])),
        () => checkTensors(decodeExamples(bytes, x), false),
        () => checkTensors(decodeExamples(bytes, inputs), false),
      ];
    },
  },
  'tfs-grpc': {
    text: false,
    seeds: tfsGrpcRequests,
    run(bytes) {
      return [
        () => {
          const { inputs: tensors } = decodeGrpcPredict(bytes);
          checkTensors(tensors, false);
          // What is written is read as it was: a response has its tensors where a request has none.
          const response = encodeGrpcPredict(model, tensors);
          check(response.length > 0, 'no response');
          for (const [name, tensor] of Object.entries(tensors)) {
            const request = new ProtoWriter().message(
              2,
              new ProtoWriter().string(1, name).message(2, tensorProto(tensor)),
            );
            sameTensors({ [name]: tensor }, decodeGrpcPredict(request.finish()).inputs);
          }
        },
      ];
    },
  },
  pbtxt: {
    text: true,
    seeds: () => [
      json(
        'name: "m"\nplatform: "onnxruntime_onnx"\nmax_batch_size: 8\ninput [ { name: "x" data_type: TYPE_FP32 dims: [ 4 ] } ]\n',
      ),
      json(
        'max_batch_size: 4 dynamic_batching { preferred_batch_size: [ 1, 2 ] max_queue_delay_microseconds: 100 default_queue_policy { timeout_action: REJECT max_queue_size: 5 } }',
      ),
      json(
        'version_policy: { specific { versions: [1, 2] } } # comment\ninstance_group [ { count: 2 kind: KIND_CPU } ]',
      ),
      json(
        'parameters { key: "intra_op_thread_count" value { string_value: "2" } } model_warmup [ { name: "w" batch_size: 1 inputs { key: "x" value { data_type: TYPE_FP32 dims: 4 zero_data: true } } } ]',
      ),
      json(
        'output { name: \'y\' data_type: TYPE_STRING dims: -1 label_filename: "l\\x41\\n.txt" }',
      ),
    ],
    run(bytes) {
      return [() => parseConfig(bytes.toString('utf8'), 'config.pbtxt', 'm')];
    },
  },
  'model.json': {
    text: true,
    seeds: () => [
      json({ batching: { maxBatch: 4, padding: { n: { sizes: [1, 2] } } }, targetP99Ms: 5 }),
      json({
        versions: { specific: [1] },
        labels: { stable: 1 },
        lanes: 2,
        warmUp: [{ batch: 2, dimensions: { n: 1 } }],
      }),
      json({
        inputs: [{ name: 'x', dtype: 'float32', shape: [-1, 2] }],
        outputs: [{ name: 'y', dtype: 'int64', labelFile: 'l' }],
      }),
      json({
        name: 'm',
        max_batch_size: 2,
        dynamic_batching: {},
        parameters: { a: { string_value: 'b' } },
      }),
    ],
    run(bytes) {
      const text = bytes.toString('utf8');
      return [() => parseConfig(text, 'model.json', 'm'), () => parseOverride(text, 'm')];
    },
  },
  'shared-memory': {
    text: true,
    seeds: () => [
      json({ key: '/k', offset: 0, byte_size: 64 }),
      json({ key: 'k', byte_size: 9007199254740991 }),
      v2Requests().at(-1),
      json({
        inputs: [
          {
            name: 'x',
            shape: [0],
            datatype: 'BYTES',
            parameters: { shared_memory_region: 'r', shared_memory_byte_size: 0 },
          },
        ],
      }),
    ],
    run(bytes) {
      region.fill(bytes[0] ?? 0); // lengths of BYTES, perhaps
      return [
        () => decodeRegisterRequest(parseCarved(bytes).value),
        () => infer(bytes, new Uint8Array(0)),
      ];
    },
  },
};

export const names = Object.keys(targets);

/** The corpus of a target. */
export function corpusOf(name) {
  const folder = fileURLToPath(new URL(`./corpus/${name}/`, import.meta.url));
  const kept = existsSync(folder)
    ? readdirSync(folder).map((file) => readFileSync(folder + file))
    : [];
  return [...targets[name].seeds(), ...kept];
}

export function isText(name) {
  return targets[name].text;
}

/** Runs one input through a target; throws what is a finding. */
export function runOne(name, bytes) {
  for (const call of targets[name].run(bytes)) {
    try {
      call();
    } catch (error) {
      if (!(error instanceof InvalidInputError)) throw error;
      if (error.message === '') throw new Error('an error without a message', { cause: error });
    }
  }
}
