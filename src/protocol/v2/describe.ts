// Open Inference Protocol v2 about models: metadata, configuration, statistics.
//
// Sources: the KServe project's "Open Inference Protocol (v2)", and Triton's "Model Configuration" and
// "Statistics" extension documents.
import type { ModelStats } from '../../types/stats.js';
import type { ValueMetadata } from '../../types/value.js';
import { datatypeOf } from './datatypes.js';

/** What the protocol wants to know of a model that is served. */
export interface DescribedModel {
  name: string;
  version: string;
  inputs: readonly ValueMetadata[];
  outputs: readonly ValueMetadata[];
  stats: ModelStats;
  file: string;
  /** Rows that the configuration promises; 0: as the scheduler has it. */
  maxBatchSize: number;
  versions: 'all' | { latest: number } | { specific: number[] };
  labels: Readonly<Record<string, number>>;
  providers: readonly string[];
}

/** A model's metadata as `GET /v2/models/{m}` has it: -1 for dynamic dimensions. */
export function modelMetadata(
  name: string,
  versions: readonly string[],
  inputs: readonly ValueMetadata[],
  outputs: readonly ValueMetadata[],
): object {
  const describe = (value: ValueMetadata): object => ({
    name: value.name,
    datatype: datatypeOf(value.dtype) ?? value.dtype,
    shape: dims(value),
  });
  return {
    name,
    versions,
    platform: 'onnxruntime_onnx',
    inputs: inputs.map(describe),
    outputs: outputs.map(describe),
  };
}

function dims(value: ValueMetadata): number[] {
  return value.shape.map((dim) => (typeof dim === 'number' ? dim : -1));
}

/** A model's configuration as `GET …/config` has it: Triton's ModelConfig in JSON. */
export function modelConfiguration(model: DescribedModel): object {
  const { maxBatch, delayUs } = model.stats.batching;
  const maxBatchSize = model.maxBatchSize || (maxBatch > 1 ? maxBatch : 0);
  const value = (value: ValueMetadata): object => {
    const shape = dims(value);
    const name = datatypeOf(value.dtype);
    return {
      name: value.name,
      data_type: name === 'BYTES' ? 'TYPE_STRING' : `TYPE_${name ?? 'INVALID'}`,
      dims: maxBatchSize > 0 ? shape.slice(1) : shape,
    };
  };
  const { versions } = model;
  return {
    name: model.name,
    platform: 'onnxruntime_onnx',
    backend: 'onnxruntime',
    version_policy:
      versions === 'all'
        ? { all: {} }
        : 'latest' in versions
          ? { latest: { num_versions: versions.latest } }
          : { specific: { versions: versions.specific } },
    max_batch_size: maxBatchSize,
    input: model.inputs.map(value),
    output: model.outputs.map(value),
    instance_group: [
      {
        name: model.name,
        kind: model.stats.device === undefined ? 'KIND_CPU' : 'KIND_GPU',
        count: Math.max(1, model.stats.lanes),
        ...(model.stats.device !== undefined && { gpus: [model.stats.device] }),
      },
    ],
    default_model_filename: model.file,
    ...(maxBatch > 1 && {
      dynamic_batching: {
        preferred_batch_size: [],
        max_queue_delay_microseconds: Math.round(delayUs),
        preserve_ordering: false,
      },
    }),
    parameters: Object.fromEntries(
      Object.entries(model.labels).map(([label, version]) => [
        `label.${label}`,
        { string_value: String(version) },
      ]),
    ),
  };
}

const ns = (us: number): number => Math.round(us * 1000);

/** Statistics as `GET …/stats` has them; durations are sums in nanoseconds. */
export function modelStatistics(models: readonly (DescribedModel & { lastMs: number })[]): object {
  return {
    model_stats: models.map(({ name, version, stats, lastMs }) => {
      const inline = stats.runsInline;
      const good = stats.runsOnLanes - stats.failed + inline;
      // Runs on the calling thread wait for nothing; their time is the median's.
      const inlineUs = inline * stats.medianRunUs;
      const duration = (count: number, us: number): object => ({ count, ns: ns(us) });
      return {
        name,
        version,
        last_inference: lastMs,
        inference_count: stats.rows,
        execution_count: stats.executions,
        inference_stats: {
          success: duration(good, stats.queueUs + stats.runUs + inlineUs),
          fail: duration(
            stats.failed + stats.expired + stats.cancelled + stats.refused,
            stats.failedUs,
          ),
          queue: duration(good, stats.queueUs),
          compute_input: duration(good, 0),
          compute_infer: duration(good, stats.runUs + inlineUs),
          compute_output: duration(good, 0),
          cache_hit: duration(0, 0),
          cache_miss: duration(0, 0),
        },
        batch_stats: stats.batches.map(({ rows, runs, runUs }) => ({
          batch_size: rows,
          compute_input: duration(runs, 0),
          compute_infer: duration(runs, runUs),
          compute_output: duration(runs, 0),
        })),
      };
    }),
  };
}
