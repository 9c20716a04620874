// y = x for a float32 matrix, for scripts that run without TypeScript.
import { Buffer } from 'node:buffer';

const varint = (value) => (value < 128 ? [value] : [(value & 127) | 128, ...varint(value >>> 7)]);
const number = (field, value) => [...varint(field << 3), ...varint(value)];
const message = (field, ...parts) => {
  const body = parts.flat();
  return [...varint((field << 3) | 2), ...varint(body.length), ...body];
};
const text = (field, value) => message(field, [...Buffer.from(value)]);

/** Field numbers: onnx.proto. */
export function identity() {
  const dim = (name) => message(1, text(2, name));
  const type = message(2, message(1, number(1, 1), message(2, dim('n'), dim('m'))));
  const node = message(1, text(1, 'x'), text(2, 'y'), text(4, 'Identity'));
  const graph = message(7, node, text(2, 'identity'), message(11, text(1, 'x'), type), message(12, text(1, 'y'), type));
  const opset = message(8, text(1, ''), number(2, 17));
  return Buffer.from([...number(1, 8), ...graph, ...opset]);
} // prettier-ignore
