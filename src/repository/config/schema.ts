// model.json: its schema, published for editors as JSON Schema (schema/model.schema.json).
import * as z from 'zod';
import { InvalidInputError } from '../../errors.js';
import { dtypeCodes, type DType } from '../../tensor.js';
import { emptyConfig, type ModelConfig } from '../../catalog/model-config.js';

const whole = (least: number): z.ZodNumber => z.int().min(least);
const dtype = z.enum(Object.keys(dtypeCodes) as [DType, ...DType[]]);
const texts = z.record(z.string(), z.string());

const padRule = z.union([
  z.strictObject({ sizes: z.array(whole(1)).min(1) }),
  z.strictObject({ multipleOf: whole(1) }),
]);

const batching = z
  .strictObject({
    maxBatch: whole(1).optional().describe('rows of one run at most; default: as measured'),
    maxDelayUs: whole(0).optional().describe('microseconds that a request waits for others'),
    preferredSizes: z.array(whole(1)).optional().describe('sizes that go without the delay'),
    targetP99Ms: z
      .number()
      .positive()
      .optional()
      .describe('milliseconds that 99 of 100 requests take at most; size and delay are learnt'),
    preserveOrder: z.boolean().optional(),
    padding: z
      .record(z.string(), padRule)
      .optional()
      .describe('named dynamic dimensions, and the sizes they are padded to'),
    padValues: z.record(z.string(), z.number()).optional().describe('by input; default 0'),
  })
  .describe('how requests share runs');

const provider = z.union([
  z.string(),
  z.strictObject({
    name: z.string(),
    options: z.record(z.string(), z.union([z.string(), z.number(), z.boolean()])).optional(),
    library: z.string().min(1).optional().describe("a plugin provider's library"),
    device: whole(0).optional().describe('which of the devices that it offers'),
  }),
]);

const gpu = z
  .strictObject({
    device: whole(0).max(0xffff).optional().describe("the GPU's number, as CUDA counts"),
    memoryLimit: whole(1).optional().describe("bytes of ONNX Runtime's arena there"),
    arenaStrategy: z.enum(['same-as-requested', 'next-power-of-two']).optional(),
    slots: whole(0).max(64).optional().describe('runs in flight; default 2'),
    graphs: z
      .union([z.boolean(), z.array(whole(1)).min(1)])
      .optional()
      .describe('CUDA graphs: of the usual batch sizes, or of these'),
    precision: z.enum(['fp32', 'fp16', 'bf16', 'int8']).optional().describe("TensorRT's"),
    engineCache: z
      .union([z.literal(false), z.string().min(1)])
      .optional()
      .describe("folder of TensorRT's engines; false: none are kept"),
  })
  .describe("how it runs on a GPU, with 'cuda' or 'tensorrt' among the providers");

const warmUp = z.strictObject({
  batch: whole(1).optional().describe('rows; default 1'),
  data: z.enum(['zero', 'random']).optional(),
  dimensions: z.record(z.string(), whole(1)).optional().describe('dynamic dimensions by name'),
  shapes: z
    .record(z.string(), z.array(whole(0)))
    .optional()
    .describe('shapes by input'),
  files: texts.optional().describe('raw data by input, files below warmup/'),
  count: whole(1).optional(),
});

const declared = z.strictObject({
  name: z.string(),
  dtype,
  shape: z.array(whole(-1)).optional().describe('-1 for dynamic dimensions'),
});

const declaredOutput = declared.extend({
  labelFile: z
    .string()
    .optional()
    .describe("names of its classes, one a line, in the model's folder"),
});

export const modelJson = z
  .strictObject({
    $schema: z.string().optional(),
    batching: z
      .union([z.literal(false), z.literal('auto'), batching])
      .optional()
      .describe("false, 'auto' (the default: as measured), or how"),
    targetP99Ms: z.number().positive().optional().describe('short for batching.targetP99Ms'),
    versions: z
      .union([
        z.literal('all'),
        z.strictObject({ latest: whole(1) }),
        z.strictObject({ specific: z.array(whole(1)).min(1) }),
      ])
      .optional()
      .describe('which versions are served; default the latest'),
    labels: z.record(z.string(), whole(1)).optional().describe('versions by label'),
    file: z.string().optional().describe("a version's file; default model.onnx"),
    lanes: whole(1).optional().describe('runs side by side'),
    threads: whole(0).optional().describe('threads inside one run; 0: all'),
    weight: z.number().positive().optional().describe('share of the compute threads'),
    maxQueue: whole(1).optional().describe('requests that may wait'),
    timeoutMs: z.number().positive().optional().describe('of requests that do not say'),
    priority: whole(1).max(8).optional().describe('of requests that do not say; 1 is first'),
    inline: z.enum(['auto', 'always', 'never']).optional(),
    warmUp: z
      .union([z.literal(false), z.array(warmUp)])
      .optional()
      .describe('runs before the version serves; default: made up from the inputs'),
    providers: z.array(provider).optional(),
    gpu: gpu.optional(),
    fallback: z.boolean().optional(),
    executionMode: z.enum(['sequential', 'parallel']).optional(),
    interOpThreads: whole(0).optional(),
    spinning: z.boolean().optional(),
    graphLevel: z.enum(['none', 'basic', 'extended', 'layout', 'all']).optional(),
    affinity: z.string().optional(),
    memory: z.enum(['tercel', 'ort', 'malloc']).optional(),
    memoryPattern: z.boolean().optional(),
    deterministic: z.boolean().optional(),
    freeDimensions: z.record(z.string(), whole(1)).optional(),
    config: texts.optional().describe('session config entries of ONNX Runtime'),
    customOpLibraries: z.array(z.string()).optional(),
    inputs: z.array(declared).optional().describe('what the model must have'),
    outputs: z.array(declaredOutput).optional(),
  })
  .describe("A model's configuration for Tercel: <repository>/<model>/model.json");

/** The JSON Schema of model.json. */
export function modelJsonSchema(): object {
  return { ...z.toJSONSchema(modelJson), title: 'Tercel model configuration' };
}

/** The mistakes of a value that no alternative fits: those of the alternative that came furthest. */
function flatten(issue: z.core.$ZodIssue, path: PropertyKey[] = []): string[] {
  const full = [...path, ...issue.path];
  if (issue.code === 'invalid_union' && issue.errors.length > 0) {
    const depth = (issues: z.core.$ZodIssue[]): number =>
      Math.max(0, ...issues.map((inner) => inner.path.length));
    const best = [...issue.errors].sort((a, b) => depth(b) - depth(a))[0]!;
    if (depth(best) > 0) return best.flatMap((inner) => flatten(inner, full));
    const expected = issue.errors
      .flat()
      .map((inner) => inner.message.replace(/^Invalid input: /, ''));
    return [`${where(full)}: ${[...new Set(expected)].join(', or ')}`];
  }
  return [`${where(full)}: ${issue.message.replace(/^Invalid input: /, '')}`];
}

function where(path: PropertyKey[]): string {
  return path.length === 0 ? '(the whole)' : path.map(String).join('.');
}

/**
 * Reads a model.json.
 *
 * @throws InvalidInputError naming the file, and for each mistake its path and what was expected
 */
export function parseModelJson(text: string, file: string): ModelConfig {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (cause) {
    throw new InvalidInputError(`${file}: ${(cause as Error).message}`, { cause });
  }
  const parsed = modelJson.safeParse(json);
  if (!parsed.success) {
    const mistakes = parsed.error.issues.flatMap((issue) => flatten(issue));
    throw new InvalidInputError(`${file}: ${mistakes.join('; ')}`);
  }
  const {
    $schema: _schema,
    versions,
    labels,
    file: modelFile,
    timeoutMs,
    priority,
    warmUp: samples,
    targetP99Ms,
    inputs,
    outputs,
    ...options
  } = parsed.data;
  const config = emptyConfig();
  config.options = options;
  if (targetP99Ms !== undefined) {
    if (options.batching === false) {
      throw new InvalidInputError(`${file}: targetP99Ms needs batching, which is false`);
    }
    const own = typeof options.batching === 'object' ? options.batching : {};
    config.options.batching = { ...own, targetP99Ms };
  }
  if (versions) config.versions = versions;
  if (labels) config.labels = labels;
  if (modelFile !== undefined) config.file = modelFile;
  if (timeoutMs !== undefined) config.timeoutMs = timeoutMs;
  if (priority !== undefined) config.priority = priority;
  if (samples !== undefined) config.warmUp = samples;
  config.inputs = inputs ?? [];
  config.outputs = outputs ?? [];
  return config;
}
