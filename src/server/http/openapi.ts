// The OpenAPI document of the REST routes: https://spec.openapis.org/oas/v3.1.0
import { version } from '../../version.js';

type Schema = Record<string, unknown>;

const text: Schema = { type: 'string' };
const whole: Schema = { type: 'integer' };
const anything: Schema = { type: 'object', additionalProperties: true };
const listOf = (items: Schema): Schema => ({ type: 'array', items });
const ref = (name: string): Schema => ({ $ref: `#/components/schemas/${name}` });
const object = (
  properties: Record<string, Schema>,
  required: string[] = Object.keys(properties),
): Schema => ({ type: 'object', properties, ...(required.length > 0 && { required }) });

const parameters: Schema = {
  type: 'object',
  additionalProperties: true,
  description: 'of the protocol and its extensions, such as priority, timeout, binary_data_size',
};
const data: Schema = {
  type: 'array',
  items: {},
  description: 'row-major, flat or nested; absent where the tensor is behind the JSON',
};
const datatype: Schema = {
  enum: [
    'BOOL',
    'UINT8',
    'UINT16',
    'UINT32',
    'UINT64',
    'INT8',
    'INT16',
    'INT32',
    'INT64',
    'FP16',
    'FP32',
    'FP64',
    'BF16',
    'BYTES',
  ],
};

const schemas: Record<string, Schema> = {
  Error: object({ error: text }),
  Tensor: object({ name: text, shape: listOf(whole), datatype, parameters, data }, [
    'name',
    'shape',
    'datatype',
  ]),
  InferRequest: object(
    {
      id: text,
      parameters,
      inputs: listOf(ref('Tensor')),
      outputs: listOf(object({ name: text, parameters }, ['name'])),
    },
    ['inputs'],
  ),
  InferResponse: object(
    { model_name: text, model_version: text, id: text, outputs: listOf(ref('Tensor')) },
    ['model_name', 'model_version', 'outputs'],
  ),
  ServerMetadata: object({ name: text, version: text, extensions: listOf(text) }),
  TensorMetadata: object({ name: text, datatype: text, shape: listOf(whole) }),
  ModelMetadata: object({
    name: text,
    versions: listOf(text),
    platform: text,
    inputs: listOf(ref('TensorMetadata')),
    outputs: listOf(ref('TensorMetadata')),
  }),
  ModelConfig: object({ name: text, platform: text, backend: text, max_batch_size: whole }),
  Statistics: object({
    model_stats: listOf(
      object({
        name: text,
        version: text,
        last_inference: whole,
        inference_count: whole,
        execution_count: whole,
        inference_stats: anything,
        batch_stats: listOf(anything),
      }),
    ),
  }),
  Index: listOf(object({ name: text, version: text, state: text, reason: text })),
  LoadRequest: object(
    {
      parameters: {
        type: 'object',
        properties: { config: { type: 'string', description: 'JSON' } },
        additionalProperties: { type: 'string', description: 'file:<path>, in base64' },
      },
    },
    [],
  ),
  Region: object({ name: text, key: text, offset: whole, byte_size: whole }),
  LogSettings: object({
    log_file: text,
    log_info: { type: 'boolean' },
    log_warning: { type: 'boolean' },
    log_error: { type: 'boolean' },
    log_verbose_level: whole,
    log_format: text,
  }),
  PredictRequest: {
    type: 'object',
    properties: { signature_name: text, instances: { type: 'array', items: {} }, inputs: {} },
    description: 'exactly one of instances (by rows) and inputs (by columns)',
  },
  PredictResponse: { type: 'object', properties: { predictions: {}, outputs: {} } },
  ExamplesRequest: object({ signature_name: text, context: anything, examples: listOf(anything) }, [
    'examples',
  ]),
  Results: object({ results: { type: 'array', items: {} } }),
  VersionStatus: object({
    model_version_status: listOf(
      object({
        version: text,
        state: { enum: ['START', 'LOADING', 'AVAILABLE', 'UNLOADING', 'END'] },
        status: object({ error_code: text, error_message: text }),
      }),
    ),
  }),
};

interface Operation {
  summary: string;
  request?: Schema;
  /** Undefined: an empty body. */
  response?: Schema;
  /** Where it is not JSON. */
  type?: string;
  binary?: boolean;
  control?: boolean;
}

const model = '/v2/models/{model}';
const tfModel = '/v1/models/{model}';
const region = '/v2/systemsharedmemory/region/{region}';

/** What is there by version too. */
function versioned(prefix: string, path: string, operations: Record<string, Operation>): Entry[] {
  const places = ['', '/versions/{version}'];
  if (prefix === tfModel) places.push('/labels/{version}');
  return places.map((place) => [`${prefix}${place}${path}`, operations]);
}

type Entry = [path: string, operations: Record<string, Operation>];

const entries: Entry[] = [
  ['/openapi.json', { get: { summary: 'This document', response: anything } }],
  ['/v2', { get: { summary: 'The server', response: ref('ServerMetadata') } }],
  [
    '/v2/health/live',
    { get: { summary: 'Whether the server answers', response: object({ live: {} }) } },
  ],
  [
    '/v2/health/ready',
    { get: { summary: 'Whether its models are ready', response: object({ ready: {} }) } },
  ],
  ['/v2/models/stats', { get: { summary: 'Statistics of all', response: ref('Statistics') } }],
  ...versioned(model, '', { get: { summary: 'A model', response: ref('ModelMetadata') } }),
  ...versioned(model, '/ready', {
    get: { summary: 'Whether it is ready', response: object({ name: text, ready: {} }) },
  }),
  ...versioned(model, '/config', {
    get: { summary: "Its configuration, as Triton's ModelConfig", response: ref('ModelConfig') },
  }),
  ...versioned(model, '/stats', {
    get: { summary: 'Its statistics', response: ref('Statistics') },
  }),
  ...versioned(model, '/infer', {
    post: {
      summary: 'Run it',
      request: ref('InferRequest'),
      response: ref('InferResponse'),
      binary: true,
    },
  }),
  ...versioned(model, '/generate', {
    post: { summary: 'Run it on plain JSON', request: anything, response: anything },
  }),
  ...versioned(model, '/generate_stream', {
    post: {
      summary: 'Run it on plain JSON, answered by server-sent events',
      request: anything,
      response: text,
      type: 'text/event-stream',
    },
  }),
  ...versioned(model, '/profile', {
    post: {
      summary: 'Watch it for ?seconds=1 (60 at most) while it serves',
      request: anything,
      response: anything,
      control: true,
    },
  }),
  [
    '/v2/repository/index',
    {
      post: {
        summary: 'The models of the repository',
        request: object({ ready: { type: 'boolean' } }, []),
        response: ref('Index'),
        control: true,
      },
    },
  ],
  [
    '/v2/repository/models/{model}/load',
    {
      post: { summary: 'Load a model, or again', request: ref('LoadRequest'), control: true },
    },
  ],
  [
    '/v2/repository/models/{model}/unload',
    { post: { summary: 'Unload a model', request: anything, control: true } },
  ],
  [
    '/v2/systemsharedmemory/status',
    { get: { summary: 'Registered regions', response: listOf(ref('Region')), control: true } },
  ],
  ['/v2/systemsharedmemory/unregister', { post: { summary: 'Let all regions go', control: true } }],
  [
    `${region}/status`,
    { get: { summary: 'A region', response: listOf(ref('Region')), control: true } },
  ],
  [
    `${region}/register`,
    {
      post: {
        summary: 'Register a region',
        request: object({ key: text, offset: whole, byte_size: whole }, ['key', 'byte_size']),
        control: true,
      },
    },
  ],
  [`${region}/unregister`, { post: { summary: 'Let a region go', control: true } }],
  [
    '/v2/logging',
    {
      get: { summary: 'What is logged', response: ref('LogSettings'), control: true },
      post: {
        summary: 'Change what is logged',
        request: anything,
        response: ref('LogSettings'),
        control: true,
      },
    },
  ],
  ...versioned(tfModel, '', {
    get: { summary: 'TensorFlow Serving: status', response: ref('VersionStatus') },
  }),
  ...versioned(tfModel, '/metadata', {
    get: { summary: 'TensorFlow Serving: metadata', response: anything },
  }),
  ...versioned(tfModel, ':predict', {
    post: {
      summary: 'TensorFlow Serving: predict',
      request: ref('PredictRequest'),
      response: ref('PredictResponse'),
    },
  }),
  ...(['classify', 'regress'] as const).flatMap((verb) =>
    versioned(tfModel, `:${verb}`, {
      post: {
        summary: `TensorFlow Serving: ${verb}`,
        request: ref('ExamplesRequest'),
        response: ref('Results'),
      },
    }),
  ),
];

const octets = { 'application/octet-stream': { schema: { type: 'string', format: 'binary' } } };

function described(path: string, operation: Operation): Schema {
  const { summary, request, response, type = 'application/json', binary, control } = operation;
  const names = Array.from(path.matchAll(/\{(\w+)\}/g), ([, name]) => name!);
  const header = {
    name: 'Inference-Header-Content-Length',
    in: 'header',
    schema: whole,
    description: 'bytes of the JSON in front of binary tensors',
  };
  const parametersOf = [
    ...names.map((name) => ({ name, in: 'path', required: true, schema: text })),
    ...(binary ? [header] : []),
  ];
  const failure = (description: string): Schema => ({
    description,
    content: { 'application/json': { schema: ref('Error') } },
  });
  return {
    summary,
    ...(parametersOf.length > 0 && { parameters: parametersOf }),
    ...(request && {
      requestBody: { content: { 'application/json': { schema: request }, ...(binary && octets) } },
    }),
    responses: {
      200: {
        description: 'Done',
        ...(response && {
          content: { [type]: { schema: response }, ...(binary && octets) },
        }),
      },
      '4XX': failure('The request is wrong, or names what is not there'),
      '5XX': failure('The run failed, the queue is full, or the model is not ready'),
    },
    ...(control && { security: [{ admin: [] }, {}] }),
  };
}

/** The document of all routes. */
export function openApiDocument(): Record<string, unknown> {
  return {
    openapi: '3.1.0',
    info: {
      title: 'Tercel',
      version,
      description:
        "The Open Inference Protocol v2 with Triton's extensions, and TensorFlow Serving's REST form",
      license: { name: 'Apache-2.0', identifier: 'Apache-2.0' },
    },
    paths: Object.fromEntries(
      entries.map(([path, operations]) => [
        path,
        Object.fromEntries(
          Object.entries(operations).map(([verb, operation]) => [verb, described(path, operation)]),
        ),
      ]),
    ),
    components: {
      schemas,
      securitySchemes: { admin: { type: 'http', scheme: 'bearer' } },
    },
  };
}

const known = new Set(
  entries.flatMap(([path, operations]) =>
    Object.keys(operations).map((verb) => `${verb} ${path.replace(/:\w+$/, '')}`),
  ),
);

/** Whether the document has a route, as the server's router writes it. */
export function isDescribed(method: string, route: string): boolean {
  return known.has(`${method.toLowerCase()} ${route.replace(/:(\w+)/g, '{$1}')}`);
}
