// Open Inference Protocol v2 about models: metadata, configuration, statistics.
//
// Sources: the KServe project's "Open Inference Protocol (v2)", and Triton's "Model Configuration" and
// "Statistics" extension documents.
import type { Duration, Servable, ServableStats, TensorInfo } from '../../types/servable.js';
import { datatypeOf } from './datatypes.js';

/** What runs a servable that does not say. */
const PLATFORM = 'tercel';

/** A model's metadata as `GET /v2/models/{m}` has it: -1 for dynamic dimensions. */
export function modelMetadata(
  { name, about, inputs, outputs }: Servable,
  versions: readonly string[],
): object {
  const describe = (value: TensorInfo): object => ({
    name: value.name,
    datatype: datatypeOf(value.dtype) ?? value.dtype,
    shape: dims(value),
  });
  return {
    name,
    versions,
    platform: about?.platform ?? PLATFORM,
    inputs: inputs.map(describe),
    outputs: outputs.map(describe),
  };
}

function dims(value: TensorInfo): number[] {
  return value.shape.map((dim) => (typeof dim === 'number' ? dim : -1));
}

/** A model's configuration as `GET …/config` has it: Triton's ModelConfig in JSON. */
export function modelConfiguration({ name, inputs, outputs, about = {} }: Servable): object {
  const { batching, maxBatchSize = 0, versions = 'all', labels = {}, instances } = about;
  const { count, gpus } = instances ?? { count: 1 };
  const value = (value: TensorInfo): object => {
    const shape = dims(value);
    const datatype = datatypeOf(value.dtype);
    return {
      name: value.name,
      data_type: datatype === 'BYTES' ? 'TYPE_STRING' : `TYPE_${datatype ?? 'INVALID'}`,
      dims: maxBatchSize > 0 ? shape.slice(1) : shape,
    };
  };
  return {
    name,
    platform: about.platform ?? PLATFORM,
    backend: about.backend ?? PLATFORM,
    version_policy:
      versions === 'all'
        ? { all: {} }
        : 'latest' in versions
          ? { latest: { num_versions: versions.latest } }
          : { specific: { versions: versions.specific } },
    max_batch_size: maxBatchSize,
    input: inputs.map(value),
    output: outputs.map(value),
    instance_group: [
      { name, kind: gpus === undefined ? 'KIND_CPU' : 'KIND_GPU', count, ...(gpus && { gpus }) },
    ],
    default_model_filename: about.file ?? '',
    ...(batching &&
      batching.maxBatch > 1 && {
        dynamic_batching: {
          preferred_batch_size: [],
          max_queue_delay_microseconds: Math.round(batching.delayUs),
          preserve_ordering: false,
        },
      }),
    parameters: Object.fromEntries(
      Object.entries(labels).map(([label, version]) => [
        `label.${label}`,
        { string_value: String(version) },
      ]),
    ),
  };
}

/** A servable's statistics, whoever counted. */
export interface CountedServable {
  readonly name: string;
  readonly version: string;
  readonly stats: ServableStats;
}

/** Statistics as `GET …/stats` has them; durations are sums in nanoseconds. */
export function modelStatistics(models: readonly CountedServable[]): object {
  const duration = ({ count, us }: Duration): object => ({ count, ns: Math.round(us * 1000) });
  return {
    model_stats: models.map(({ name, version, stats }) => {
      const none = (count: number): object => duration({ count, us: 0 });
      const good = stats.success.count;
      return {
        name,
        version,
        last_inference: Math.round(stats.lastMs),
        inference_count: stats.inferences,
        execution_count: stats.executions,
        inference_stats: {
          success: duration(stats.success),
          fail: duration(stats.fail),
          queue: duration(stats.queue),
          compute_input: none(good),
          compute_infer: duration(stats.infer),
          compute_output: none(good),
          cache_hit: none(0),
          cache_miss: none(0),
        },
        batch_stats: stats.batches.map(({ rows, runs, runUs }) => ({
          batch_size: rows,
          compute_input: none(runs),
          compute_infer: duration({ count: runs, us: runUs }),
          compute_output: none(runs),
        })),
      };
    }),
  };
}
