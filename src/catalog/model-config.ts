// What a model's configuration says, wherever it was written: model.json, config.pbtxt, a load call.
import type { DType } from '../tensor.js';
import type { ModelOptions } from '../types/model-options.js';
import type { WarmUpSample } from '../types/warm-up.js';

/** Names of configuration files in a model's folder, the first that is there counts. */
export const CONFIG_FILES = ['model.json', 'config.pbtxt'] as const;

/** Which of the versions that are there are served. */
export type VersionPolicy = 'all' | { latest: number } | { specific: number[] };

/** An input or output as the configuration declares it; the model must agree. */
export interface DeclaredValue {
  name: string;
  dtype: DType;
  /** -1 for dynamic; undefined: not said. */
  shape?: number[];
  /** Of an output: the file in the model's folder that names its classes, one a line. */
  labelFile?: string;
}

/** A warm-up run; `files` are below the model's folder warmup/. */
export interface WarmUpConfig extends Omit<WarmUpSample, 'inputs'> {
  files?: Record<string, string>;
}

export interface ModelConfig {
  /** For loadModel() and the scheduler. */
  options: ModelOptions;
  versions: VersionPolicy;
  /** Versions by label. */
  labels: Record<string, number>;
  /** Undefined: made up; false: none. */
  warmUp?: WarmUpConfig[] | false;
  /** For requests that do not say. */
  timeoutMs?: number;
  priority?: number;
  /** Whether a request may set its own timeout. */
  timeoutOverride: boolean;
  /** The file in a version's folder. */
  file: string;
  inputs: DeclaredValue[];
  outputs: DeclaredValue[];
  /** Names of classes by output, from the label files. */
  classNames: Record<string, readonly string[]>;
  /** Rows of a request at most that the configuration promises clients; 0: not said. */
  maxBatchSize: number;
  /** What is in the configuration and not supported. */
  warnings: string[];
}

export function emptyConfig(): ModelConfig {
  return {
    options: {},
    versions: { latest: 1 },
    labels: {},
    timeoutOverride: true,
    file: 'model.onnx',
    inputs: [],
    outputs: [],
    classNames: {},
    maxBatchSize: 0,
    warnings: [],
  };
}
