// How large a model's weights are, as its file declares them.
// Source: onnx.proto3, ModelProto.graph (7), GraphProto.initializer (5), TensorProto.dims (1), data_type (2).
import { readFileSync } from 'node:fs';
import { InvalidInputError } from '../errors.js';
import { LENGTH, ProtoReader } from '../protobuf.js';
import { bytesPerElement, dtypeFromCode } from '../tensor.js';

/**
 * Bytes of all initializers, in the file or in external data beside it; 0 for a file that is no ONNX model
 * (.ort).
 *
 * @throws InvalidInputError when the file cannot be read
 */
export function weightBytes(file: string): number {
  let bytes: Uint8Array;
  try {
    bytes = readFileSync(file);
  } catch (cause) {
    throw new InvalidInputError(`cannot read model "${file}": ${(cause as Error).message}`, {
      cause,
    });
  }
  let sum = 0;
  try {
    const model = new ProtoReader(bytes);
    while (model.next()) {
      if (model.field !== 7 || model.type !== LENGTH) {
        model.skip();
        continue;
      }
      const graph = model.message();
      while (graph.next()) {
        if (graph.field === 5 && graph.type === LENGTH) sum += initializerBytes(graph.message());
        else graph.skip();
      }
    }
  } catch {
    return 0;
  }
  return sum;
}

function initializerBytes(tensor: ProtoReader): number {
  let count = 1;
  let size = 0;
  while (tensor.next()) {
    if (tensor.field === 1) tensor.repeated((raw) => (count *= raw.rawSafeInt64()));
    else if (tensor.field === 2) {
      const dtype = dtypeFromCode(tensor.int64());
      size = dtype && dtype !== 'string' ? bytesPerElement(dtype) : 0;
    } else tensor.skip();
  }
  return count * size;
}
