// Triton's model configuration, from config.pbtxt or as JSON in a load call.
//
// Source: the Triton Inference Server's model_config.proto and its "Model Configuration" document. What
// Tercel does not support is listed in the warnings, field by field.
import { InvalidInputError } from '../../errors.js';
import type { DType } from '../../tensor.js';
import type { BatchingOptions } from '../../types/batching.js';
import type { GpuOptions } from '../../types/gpu.js';
import type { ModelOptions } from '../../types/model-options.js';
import {
  emptyConfig,
  type DeclaredValue,
  type ModelConfig,
  type WarmUpConfig,
} from '../../catalog/model-config.js';
import { fromJson, parseTextFormat, type TextMessage, type TextValue } from './pbtxt.js';

const dtypes: Readonly<Record<string, DType>> = {
  TYPE_BOOL: 'bool',
  TYPE_UINT8: 'uint8',
  TYPE_UINT16: 'uint16',
  TYPE_UINT32: 'uint32',
  TYPE_UINT64: 'uint64',
  TYPE_INT8: 'int8',
  TYPE_INT16: 'int16',
  TYPE_INT32: 'int32',
  TYPE_INT64: 'int64',
  TYPE_FP16: 'float16',
  TYPE_FP32: 'float32',
  TYPE_FP64: 'float64',
  TYPE_BF16: 'bfloat16',
  TYPE_STRING: 'string',
};

/** The fields of the JSON form that are maps. */
const maps = new Set(['parameters', 'inputs', 'cc_model_filenames', 'metric_tags']);

/** Reads fields, and remembers which nobody asked for. */
class Fields {
  readonly #fields: TextMessage;
  readonly #path: string;
  readonly #file: string;
  readonly #read = new Set<string>();

  constructor(fields: TextMessage, file: string, path = '') {
    this.#fields = fields;
    this.#file = file;
    this.#path = path;
  }

  fail(name: string, expected: string, got: unknown): never {
    throw new InvalidInputError(
      `${this.#file}: ${this.#path}${name}: expected ${expected}, got ${JSON.stringify(got)}`,
    );
  }

  all(name: string): TextValue[] {
    this.#read.add(name);
    return this.#fields[name] ?? [];
  }

  #one(name: string): TextValue | undefined {
    const values = this.all(name);
    if (values.length > 1) this.fail(name, 'one value', values.length);
    return values[0];
  }

  text(name: string): string | undefined {
    const value = this.#one(name);
    if (value !== undefined && typeof value !== 'string') this.fail(name, 'a string', value);
    return value;
  }

  flag(name: string): boolean {
    const value = this.#one(name);
    if (value !== undefined && typeof value !== 'boolean') this.fail(name, 'true or false', value);
    return value ?? false;
  }

  #whole(name: string, value: TextValue): number {
    // JSON has 64-bit numbers as strings.
    const number = typeof value === 'string' ? Number(value) : value;
    if (typeof number !== 'number' || !Number.isSafeInteger(number)) {
      this.fail(name, 'a whole number', value);
    }
    return number;
  }

  whole(name: string): number | undefined {
    const value = this.#one(name);
    return value === undefined ? undefined : this.#whole(name, value);
  }

  wholes(name: string): number[] {
    return this.all(name).map((value) => this.#whole(name, value));
  }

  messages(name: string): Fields[] {
    return this.all(name).map((value, i, { length }) => {
      if (typeof value !== 'object') this.fail(name, 'a message', value);
      const index = length > 1 ? `[${i}]` : '';
      return new Fields(value, this.#file, `${this.#path}${name}${index}.`);
    });
  }

  message(name: string): Fields | undefined {
    const list = this.messages(name);
    if (list.length > 1) this.fail(name, 'one message', list.length);
    return list[0];
  }

  /** Paths of the fields that nobody asked for. */
  unread(): string[] {
    return Object.keys(this.#fields)
      .filter((name) => !this.#read.has(name))
      .map((name) => this.#path + name);
  }
}

class Reader {
  readonly config = emptyConfig();
  readonly #file: string;

  constructor(file: string) {
    this.#file = file;
  }

  /** The fields left over, named. */
  #done(...all: (Fields | undefined)[]): void {
    for (const fields of all) {
      for (const path of fields?.unread() ?? []) {
        this.config.warnings.push(`${this.#file}: ${path} is not supported and has no effect`);
      }
    }
  }

  #warn(text: string): void {
    this.config.warnings.push(`${this.#file}: ${text}`);
  }

  read(root: Fields, name: string): ModelConfig {
    const { config } = this;
    const own = root.text('name');
    if (own !== undefined && own !== '' && own !== name) {
      root.fail('name', `"${name}", as its folder is called`, own);
    }
    const platform = root.text('platform');
    const backend = root.text('backend');
    if (platform && !['onnxruntime_onnx', 'onnxruntime'].includes(platform)) {
      root.fail('platform', '"onnxruntime_onnx"', platform);
    }
    if (backend && backend !== 'onnxruntime') root.fail('backend', '"onnxruntime"', backend);
    for (const kind of ['ensemble_scheduling', 'sequence_batching']) {
      if (root.all(kind).length > 0) {
        throw new InvalidInputError(`${this.#file}: ${kind} is not supported`);
      }
    }
    config.maxBatchSize = root.whole('max_batch_size') ?? 0;
    if (config.maxBatchSize < 0) root.fail('max_batch_size', '0 or more', config.maxBatchSize);
    config.inputs = root.messages('input').map((input) => this.#declared(input));
    config.outputs = root.messages('output').map((output) => this.#declared(output));
    const file = root.text('default_model_filename');
    if (file) config.file = file;
    this.#versions(root.message('version_policy'));
    this.#batching(root.message('dynamic_batching'));
    // The accelerators first: they are preferred to the provider of the instances.
    this.#optimization(root.message('optimization'));
    this.#instances(root.messages('instance_group'));
    this.#parameters(root.messages('parameters'));
    const warmUps = root.messages('model_warmup');
    if (warmUps.length > 0) config.warmUp = warmUps.map((sample) => this.#warmUp(sample));
    this.#done(root);
    return config;
  }

  #dtype(fields: Fields): DType {
    const name = fields.text('data_type') ?? 'TYPE_INVALID';
    const dtype = dtypes[name];
    if (!dtype) return fields.fail('data_type', Object.keys(dtypes).join(', '), name);
    return dtype;
  }

  #declared(fields: Fields): DeclaredValue {
    const name = fields.text('name');
    if (!name) return fields.fail('name', 'a name', name);
    const dims = fields.wholes('dims');
    const value: DeclaredValue = { name, dtype: this.#dtype(fields) };
    if (dims.length > 0) value.shape = this.config.maxBatchSize > 0 ? [-1, ...dims] : dims;
    const labels = fields.text('label_filename');
    if (labels) value.labelFile = labels;
    const format = fields.text('format');
    if (format && format !== 'FORMAT_NONE')
      this.#warn(`format ${format} of "${name}" has no effect`);
    this.#done(fields);
    return value;
  }

  #versions(fields: Fields | undefined): void {
    if (!fields) return;
    const latest = fields.message('latest');
    const specific = fields.message('specific');
    const all = fields.message('all');
    if (all) this.config.versions = 'all';
    if (specific) this.config.versions = { specific: specific.wholes('versions') };
    if (latest) {
      const count = latest.whole('num_versions') ?? 1;
      if (count < 1) latest.fail('num_versions', '1 or more', count);
      this.config.versions = { latest: count };
    }
    this.#done(fields, latest, specific, all);
  }

  #batching(fields: Fields | undefined): void {
    const { config } = this;
    // Without dynamic_batching Triton forms no batches, whatever max_batch_size says.
    config.options.batching = false;
    if (!fields) return;
    if (config.maxBatchSize === 0) {
      fields.fail('', 'max_batch_size of 1 or more beside it', config.maxBatchSize);
    }
    const preferred = fields.wholes('preferred_batch_size');
    for (const size of preferred) {
      if (size < 1 || size > config.maxBatchSize) {
        fields.fail('preferred_batch_size', `1 to max_batch_size (${config.maxBatchSize})`, size);
      }
    }
    const batching: BatchingOptions = {
      maxBatch: config.maxBatchSize,
      maxDelayUs: fields.whole('max_queue_delay_microseconds') ?? 0,
      preferredSizes: preferred,
      preserveOrder: fields.flag('preserve_ordering'),
    };
    config.options.batching = batching;
    const levels = fields.whole('priority_levels') ?? 0;
    if (levels > 8) this.#warn(`priority_levels: levels above 8 count as 8`);
    const level = fields.whole('default_priority_level') ?? 0;
    if (level > 0) config.priority = Math.min(level, 8);
    const queue = fields.message('default_queue_policy');
    if (queue) {
      const size = queue.whole('max_queue_size') ?? 0;
      if (size > 0) config.options.maxQueue = size;
      const timeoutUs = queue.whole('default_timeout_microseconds') ?? 0;
      if (timeoutUs > 0) config.timeoutMs = timeoutUs / 1000;
      config.timeoutOverride = queue.flag('allow_timeout_override');
      const action = queue.text('timeout_action') ?? 'REJECT';
      if (action !== 'REJECT') {
        this.#warn(
          `timeout_action ${action} is not supported: requests that time out are rejected`,
        );
      }
    }
    this.#done(fields, queue);
  }

  #instances(groups: Fields[]): void {
    const { options } = this.config;
    let count = 0;
    let onGpu = 0;
    let anywhere = 0;
    const devices = new Set<number>();
    for (const group of groups) {
      const instances = group.whole('count') ?? 1;
      const kind = group.text('kind') ?? 'KIND_AUTO';
      for (const gpu of group.wholes('gpus')) devices.add(gpu);
      if (kind === 'KIND_GPU') {
        onGpu += instances;
      } else {
        if (kind === 'KIND_AUTO') anywhere += instances;
        count += instances;
        if (kind !== 'KIND_CPU' && kind !== 'KIND_AUTO') {
          this.#warn(
            `instance_group kind ${kind} has no effect; the providers say where a model runs`,
          );
        }
      }
      this.#done(group);
    }
    // What TensorRT does not take, CUDA does, as in Triton.
    if (onGpu > 0 || options.providers) {
      const [device = 0] = devices;
      if (devices.size > 1) {
        this.#warn(`instance_group gpus: GPU ${device} is used, not the others`);
      } else if (onGpu > 0 && devices.size === 0) {
        this.#warn('instance_group without gpus: GPU 0 is used, not the others, if there are any');
      }
      if (count > anywhere) {
        this.#warn('instance_group on CPUs has no effect beside GPUs and their accelerators');
      }
      const named = (options.providers ?? []).map((one) =>
        typeof one === 'string' ? one : one.name,
      );
      if (!named.includes('cuda')) options.providers = [...(options.providers ?? []), 'cuda'];
      // Such a folder serves on a machine without a GPU as well; the load warns.
      options.fallback = true;
      options.gpu = { ...options.gpu, device };
      // One instance is Triton's default: that asks for nothing.
      if (onGpu + anywhere > 1) options.gpu.slots = onGpu + anywhere;
    } else if (count > 0) {
      options.lanes = count;
    }
  }

  #optimization(fields: Fields | undefined): void {
    if (!fields) return;
    const graph = fields.message('graph');
    const level = graph?.whole('level');
    // As Triton's ONNX Runtime backend has it: -1 basic, 1 extended, 2 disabled; else all.
    const levels: Record<number, NonNullable<ModelOptions['graphLevel']>> = {
      [-1]: 'basic',
      1: 'extended',
      2: 'none',
    };
    if (level !== undefined && levels[level]) this.config.options.graphLevel = levels[level];
    const accelerators = fields.message('execution_accelerators');
    const providers = accelerators?.messages('gpu_execution_accelerator') ?? [];
    for (const provider of providers) {
      const options: Record<string, string> = {};
      const name = provider.text('name') ?? '';
      for (const entry of provider.messages('parameters')) {
        const key = entry.text('key') ?? '';
        const value = entry.text('value') ?? '';
        // Parameters that Triton's backend has names of its own for.
        if (name === 'tensorrt' && key === 'precision_mode') {
          const precision = ['FP32', 'FP16', 'BF16', 'INT8'].includes(value) && value.toLowerCase();
          if (!precision) provider.fail('precision_mode', 'FP32, FP16, BF16 or INT8', value);
          this.config.options.gpu = {
            ...this.config.options.gpu,
            precision: precision as NonNullable<GpuOptions['precision']>,
          };
        } else if (name === 'tensorrt' && key === 'max_workspace_size_bytes') {
          options['trt_max_workspace_size'] = value;
        } else if (name === 'tensorrt' && /^int8_\w+calibration_table/.test(key)) {
          options[`trt_${key}`] = value;
        } else {
          options[key] = value;
        }
      }
      this.config.options.providers = [...(this.config.options.providers ?? []), { name, options }];
      this.#done(provider);
    }
    const cuda = fields.message('cuda');
    if (cuda?.flag('graphs')) {
      const sizes = cuda.messages('graph_spec').map((spec) => {
        const size = spec.whole('batch_size') ?? 0;
        this.#done(spec);
        return size;
      });
      const graphs = sizes.filter((size) => size > 0);
      this.config.options.gpu = {
        ...this.config.options.gpu,
        graphs: graphs.length > 0 ? graphs : true,
      };
    }
    this.#done(fields, graph, accelerators, cuda);
  }

  #parameters(entries: Fields[]): void {
    const { options } = this.config;
    for (const entry of entries) {
      const key = entry.text('key') ?? '';
      const value = entry.message('value')?.text('string_value') ?? '';
      const number = Number(value);
      const isWhole = value !== '' && Number.isInteger(number) && number >= 0;
      if (key === 'intra_op_thread_count' && isWhole) {
        // 0 is the library's default there: all processors.
        options.threads = number;
      } else if (key === 'inter_op_thread_count' && isWhole) {
        options.interOpThreads = number;
      } else if (key === 'execution_mode' && (number === 0 || number === 1)) {
        options.executionMode = number === 1 ? 'parallel' : 'sequential';
      } else if (key === 'gpu_mem_limit' && isWhole && number > 0) {
        options.gpu = { ...options.gpu, memoryLimit: number };
      } else if (key === 'arena_extend_strategy' && (value === '0' || value === '1')) {
        options.gpu = {
          ...options.gpu,
          arenaStrategy: value === '0' ? 'next-power-of-two' : 'same-as-requested',
        };
      } else if (key.startsWith('session.') || key.startsWith('optimization.')) {
        options.config = { ...options.config, [key]: value };
      } else {
        this.#warn(`parameters: "${key}" = "${value}" is not supported and has no effect`);
      }
    }
  }

  #warmUp(fields: Fields): WarmUpConfig {
    const sample: WarmUpConfig = { data: 'random', shapes: {}, files: {} };
    fields.text('name');
    const batch = fields.whole('batch_size') ?? 0;
    if (batch > 0) sample.batch = batch;
    const count = fields.whole('count') ?? 0;
    if (count > 0) sample.count = count;
    for (const entry of fields.messages('inputs')) {
      const key = entry.text('key');
      const value = entry.message('value');
      if (!key || !value) return entry.fail('', 'key and value', key);
      this.#dtype(value);
      (sample.shapes as Record<string, number[]>)[key] = value.wholes('dims');
      if (value.flag('zero_data')) sample.data = 'zero';
      value.flag('random_data');
      const file = value.text('input_data_file');
      if (file) sample.files![key] = file;
      this.#done(value);
    }
    this.#done(fields);
    return sample;
  }
}

/**
 * Reads a config.pbtxt.
 *
 * @throws InvalidInputError with file, line or field, and what was expected
 */
export function parseTritonText(text: string, file: string, name: string): ModelConfig {
  return new Reader(file).read(new Fields(parseTextFormat(text, file), file), name);
}

/** The same in its JSON form, as a load call brings it. */
export function parseTritonJson(
  json: Record<string, unknown>,
  file: string,
  name: string,
): ModelConfig {
  return new Reader(file).read(new Fields(fromJson(json, maps), file), name);
}
