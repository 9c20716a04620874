// TensorFlow Serving about models: status and metadata.
//
// Sources: TensorFlow Serving's "RESTful API" document, get_model_status.proto and
// get_model_metadata.proto.
import type { DType } from '../../tensor.js';
import type { TensorInfo } from '../../types/servable.js';
import { SIGNATURE } from './rest.js';

/** TensorFlow's DataType by name; numbers are those of tensorflow/core/framework/types.proto. */
export const tfTypes: Readonly<Record<DType, readonly [name: string, code: number]>> = {
  float32: ['DT_FLOAT', 1],
  float64: ['DT_DOUBLE', 2],
  int32: ['DT_INT32', 3],
  uint8: ['DT_UINT8', 4],
  int16: ['DT_INT16', 5],
  int8: ['DT_INT8', 6],
  string: ['DT_STRING', 7],
  int64: ['DT_INT64', 9],
  bool: ['DT_BOOL', 10],
  bfloat16: ['DT_BFLOAT16', 14],
  uint16: ['DT_UINT16', 17],
  float16: ['DT_HALF', 19],
  uint32: ['DT_UINT32', 22],
  uint64: ['DT_UINT64', 23],
};

/** What a version is doing, as TensorFlow Serving says it. */
export type TfState = 'START' | 'LOADING' | 'AVAILABLE' | 'UNLOADING' | 'END';

export interface TfVersionStatus {
  version: string;
  state: TfState;
  status: { error_code: 'OK' | 'UNKNOWN'; error_message: string };
}

const states: Readonly<Record<string, TfState>> = {
  READY: 'AVAILABLE',
  LOADING: 'LOADING',
  UNLOADING: 'UNLOADING',
  UNAVAILABLE: 'END',
};

/** The status of versions, newest first, from lines of the repository's index. */
export function versionStatuses(
  entries: readonly { version: string; state: string; reason: string }[],
): TfVersionStatus[] {
  return [...entries]
    .sort((a, b) => Number(b.version) - Number(a.version))
    .map(({ version, state, reason }) => {
      const failed = reason !== '' && state === 'UNAVAILABLE' && reason !== 'unloaded';
      return {
        version,
        state: states[state] ?? 'START',
        status: failed
          ? { error_code: 'UNKNOWN' as const, error_message: reason }
          : { error_code: 'OK' as const, error_message: '' },
      };
    });
}

function tensorInfo({ name, dtype, shape }: TensorInfo): object {
  return {
    name,
    dtype: tfTypes[dtype]?.[0] ?? 'DT_INVALID',
    tensor_shape: {
      dim: shape.map((dim) => ({
        size: String(typeof dim === 'number' ? dim : -1),
        name: typeof dim === 'string' ? dim : '',
      })),
      unknown_rank: false,
    },
  };
}

/** The model's one signature. */
export function signatureDefs(
  inputs: readonly TensorInfo[],
  outputs: readonly TensorInfo[],
): Record<string, object> {
  const byName = (values: readonly TensorInfo[]): object =>
    Object.fromEntries(values.map((value) => [value.name, tensorInfo(value)]));
  return {
    [SIGNATURE]: {
      inputs: byName(inputs),
      outputs: byName(outputs),
      method_name: 'tensorflow/serving/predict',
    },
  };
}

/** What `GET /v1/models/{m}/metadata` answers. */
export function tfMetadata(
  name: string,
  version: string,
  inputs: readonly TensorInfo[],
  outputs: readonly TensorInfo[],
): object {
  return {
    model_spec: { name, signature_name: '', version },
    metadata: { signature_def: { signature_def: signatureDefs(inputs, outputs) } },
  };
}
