// Configurations: model.json, config.pbtxt, what they mean and how they are refused.
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { parseTextFormat } from '../../src/repository/config/pbtxt.js';
import { parseOverride } from '../../src/repository/config/read.js';
import { modelJsonSchema, parseModelJson } from '../../src/repository/config/schema.js';
import { parseTritonText } from '../../src/repository/config/triton.js';
import type { ModelOptions } from '../../src/types/model-options.js';

const json = (value: unknown): ReturnType<typeof parseModelJson> =>
  parseModelJson(JSON.stringify(value), 'm/model.json');
const triton = (text: string): ReturnType<typeof parseTritonText> =>
  parseTritonText(text, 'm/config.pbtxt', 'm');

describe('model.json', () => {
  it('says how a model is batched, versioned and warmed', () => {
    const config = json({
      batching: { maxBatch: 32, maxDelayUs: 200, padding: { tokens: { sizes: [16, 32] } } },
      targetP99Ms: 20,
      versions: { latest: 2 },
      labels: { stable: 3, canary: 4 },
      lanes: 2,
      weight: 2,
      timeoutMs: 500,
      warmUp: [{ batch: 4, dimensions: { tokens: 16 } }],
    });
    expect(config).toMatchObject({
      options: {
        batching: { maxBatch: 32, maxDelayUs: 200, targetP99Ms: 20 },
        lanes: 2,
        weight: 2,
      },
      versions: { latest: 2 },
      labels: { stable: 3, canary: 4 },
      timeoutMs: 500,
      warmUp: [{ batch: 4, dimensions: { tokens: 16 } }],
    });
  });

  it.each([
    ['{', 'm/model.json: Expected property name'],
    ['[]', 'm/model.json: (the whole): expected object, received array'],
    ['{"lane": 2}', 'm/model.json: (the whole): Unrecognized key: "lane"'],
    ['{"lanes": 0}', 'm/model.json: lanes: Too small: expected number to be >=1'],
    [
      '{"batching": {"maxBatch": "8"}}',
      'm/model.json: batching.maxBatch: expected number, received string',
    ],
    ['{"batching": 3}', 'm/model.json: batching: '],
    [
      '{"lanes": 1.5, "threads": "two"}',
      'lanes: expected int, received number; threads: expected number, received string',
    ],
    ['{"versions": {"latest": 0}}', 'versions.latest: '],
    ['{"inputs": [{"name": "x", "dtype": "float"}]}', 'inputs.0.dtype: Invalid option'],
  ])('%s is refused', (text, message) => {
    expect(() => parseModelJson(text, 'm/model.json')).toThrow(message);
  });

  it('has a schema for editors, and it is the published one', () => {
    const published = fileURLToPath(new URL('../../schema/model.schema.json', import.meta.url));
    expect(JSON.parse(readFileSync(published, 'utf8'))).toEqual(modelJsonSchema());
  });
});

describe('config.pbtxt', () => {
  it('is parsed as text format has it', () => {
    expect(
      parseTextFormat(
        `# a comment
        name: "a" 'b'  # strings side by side are one
        n: [ 1, -2, 0x10 ] n: 3; f: 1.5e2f flag: true kind: KIND_CPU
        m { x: 1 } m: < x: 2 >, text: "\\x41\\n\\"\\101"`,
        'f',
      ),
    ).toEqual({
      name: ['ab'],
      n: [1, -2, 16, 3],
      f: [150],
      flag: [true],
      kind: ['KIND_CPU'],
      m: [{ x: [1] }, { x: [2] }],
      text: ['A\n"A'],
    });
  });

  it.each([
    ['name: ', 'f:1: expected a value, got "the end of the file"'],
    ['a: 1\nb {', 'f:2: expected a field or "}", got "the end of the file"'],
    ['a 1', 'f:1: expected ":" or a message, got "1"'],
    ['a: [1 2]', 'f:1: expected "," or "]", got "2"'],
    ['a: "open', 'f:1: unexpected "\\""'],
    ['\n\n: 3', 'f:3: expected a field, got ":"'],
    ['a {'.repeat(100), 'expected at most 64 messages inside each other'],
  ])('%j is refused', (text, message) => {
    expect(() => parseTextFormat(text, 'f')).toThrow(message);
  });

  it('means what Triton means by it', () => {
    const config = triton(`
      name: "m"
      backend: "onnxruntime"
      max_batch_size: 16
      input [ { name: "x" data_type: TYPE_FP32 dims: [ 3, -1 ] } ]
      output [ { name: "y" data_type: TYPE_STRING dims: [ 1 ] } ]
      version_policy: { specific: { versions: [ 1, 3 ] } }
      dynamic_batching {
        preferred_batch_size: [ 4, 8 ]
        max_queue_delay_microseconds: 100
        preserve_ordering: true
        priority_levels: 2
        default_priority_level: 2
        default_queue_policy { max_queue_size: 50 default_timeout_microseconds: 2000 }
      }
      instance_group [ { count: 2 kind: KIND_CPU } ]
      optimization { graph { level: 1 } }
      parameters { key: "intra_op_thread_count" value: { string_value: "2" } }
      model_warmup [ {
        name: "zeros" batch_size: 4
        inputs { key: "x" value: { data_type: TYPE_FP32 dims: [ 3, 5 ] zero_data: true } }
      } ]`);
    expect(config).toMatchObject({
      maxBatchSize: 16,
      inputs: [{ name: 'x', dtype: 'float32', shape: [-1, 3, -1] }],
      outputs: [{ name: 'y', dtype: 'string', shape: [-1, 1] }],
      versions: { specific: [1, 3] },
      options: {
        batching: { maxBatch: 16, maxDelayUs: 100, preferredSizes: [4, 8], preserveOrder: true },
        maxQueue: 50,
        lanes: 2,
        graphLevel: 'extended',
        threads: 2,
      },
      priority: 2,
      timeoutMs: 2,
      timeoutOverride: false,
      warmUp: [{ batch: 4, data: 'zero', shapes: { x: [3, 5] } }],
      warnings: [],
    });
  });

  it('lists what is not supported, field by field', () => {
    const { warnings } = triton(`
      max_batch_size: 4
      dynamic_batching { default_queue_policy { timeout_action: DELAY } }
      response_cache { enable: true }
      instance_group { kind: KIND_MODEL }
      parameters { key: "cudnn_conv_algo_search" value: { string_value: "1" } }`);
    expect(warnings).toEqual([
      'm/config.pbtxt: timeout_action DELAY is not supported: requests that time out are rejected',
      'm/config.pbtxt: instance_group kind KIND_MODEL has no effect; the providers say where a model runs',
      'm/config.pbtxt: parameters: "cudnn_conv_algo_search" = "1" is not supported and has no effect',
      'm/config.pbtxt: response_cache is not supported and has no effect',
    ]);
  });

  it('says where on which GPU a model runs', () => {
    const { options, warnings } = triton(`
      max_batch_size: 8
      dynamic_batching { }
      instance_group { count: 3 kind: KIND_GPU gpus: [ 1, 2 ] }
      optimization {
        cuda { graphs: true graph_spec { batch_size: 4 } graph_spec { batch_size: 8 } }
        execution_accelerators { gpu_execution_accelerator {
          name: "tensorrt"
          parameters { key: "precision_mode" value: "FP16" }
          parameters { key: "max_workspace_size_bytes" value: "1073741824" }
          parameters { key: "trt_builder_optimization_level" value: "5" }
        } }
      }`);
    expect(options).toMatchObject({
      providers: [
        {
          name: 'tensorrt',
          options: { trt_max_workspace_size: '1073741824', trt_builder_optimization_level: '5' },
        },
        'cuda',
      ],
      // The same folder serves on a machine without a GPU.
      fallback: true,
      gpu: { device: 1, slots: 3, graphs: [4, 8], precision: 'fp16' },
    });
    expect(options.lanes).toBeUndefined();
    const accelerator = (name: string, rest = ''): ModelOptions['providers'] =>
      triton(`optimization { execution_accelerators {
        gpu_execution_accelerator { name: "${name}" ${rest} } } }`).options.providers;
    expect(accelerator('cuda')).toEqual([{ name: 'cuda', options: {} }]);
    // CUDA takes what TensorRT does not, as in Triton.
    expect(accelerator('tensorrt')).toEqual([{ name: 'tensorrt', options: {} }, 'cuda']);
    expect(
      triton(`instance_group [ { kind: KIND_GPU } ]
        parameters { key: "gpu_mem_limit" value: { string_value: "1000000" } }
        parameters { key: "arena_extend_strategy" value: { string_value: "1" } }`).options,
    ).toMatchObject({
      providers: ['cuda'],
      gpu: { device: 0, memoryLimit: 1000000, arenaStrategy: 'same-as-requested' },
    });
    expect(warnings).toEqual([
      'm/config.pbtxt: instance_group gpus: GPU 1 is used, not the others',
    ]);
  });

  it.each([
    [
      'optimization { execution_accelerators { gpu_execution_accelerator { name: "tensorrt" parameters { key: "precision_mode" value: "FP8" } } } }',
      'optimization.execution_accelerators.gpu_execution_accelerator.precision_mode: expected FP32, ',
    ],
    ['name: "other"', 'name: expected "m", as its folder is called, got "other"'],
    ['platform: "tensorrt_plan"', 'platform: expected "onnxruntime_onnx", got "tensorrt_plan"'],
    ['max_batch_size: "many"', 'max_batch_size: expected a whole number, got "many"'],
    ['ensemble_scheduling { }', 'ensemble_scheduling is not supported'],
    ['input { name: "x" data_type: TYPE_FLOAT }', 'input.data_type: expected TYPE_BOOL, '],
    ['dynamic_batching { }', 'dynamic_batching.: expected max_batch_size of 1 or more'],
    [
      'max_batch_size: 2 dynamic_batching { preferred_batch_size: 4 }',
      'dynamic_batching.preferred_batch_size: expected 1 to max_batch_size (2), got 4',
    ],
  ])('%s is refused', (text, message) => {
    expect(() => triton(text)).toThrow(`m/config.pbtxt: ${message}`);
  });
});

describe('a configuration in a load call', () => {
  it('is ours or Triton’s', () => {
    expect(parseOverride('{"lanes": 2}', 'm').options.lanes).toBe(2);
    expect(
      parseOverride(
        '{"name": "m", "max_batch_size": 8, "dynamic_batching": {"max_queue_delay_microseconds": "5"}, "parameters": {"intra_op_thread_count": {"string_value": "2"}}}',
        'm',
      ).options,
    ).toMatchObject({ batching: { maxBatch: 8, maxDelayUs: 5 }, threads: 2 });
    expect(() => parseOverride('{"lanes": "x"}', 'm')).toThrow(
      'config of model "m": lanes: expected number, received string',
    );
  });
});
