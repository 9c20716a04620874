// Loads a model, runs it once on ones, prints the memory that the process holds then, and ends:
// node once.mjs tercel|onnxruntime-node MODEL
import { readFileSync } from 'node:fs';

const [, , peer, path] = process.argv;
let inputs;
const feed = (names, shapes) =>
  names.map((name, i) => [
    name,
    shapes[i].map((dim) => (typeof dim === 'number' && dim > 0 ? dim : 1)),
  ]);

if (peer === 'tercel') {
  const { loadModel } = await import('tercel');
  const model = await loadModel(path);
  inputs = feed(
    model.inputs.map(({ name }) => name),
    model.inputs.map(({ shape }) => shape),
  ).map(([name, shape]) => [
    name,
    { dtype: 'float32', shape, data: new Float32Array(shape.reduce((a, b) => a * b, 1)).fill(1) },
  ]);
  await model.run(Object.fromEntries(inputs));
} else {
  const { InferenceSession, Tensor } = (await import('onnxruntime-node')).default;
  const session = await InferenceSession.create(path, { intraOpNumThreads: 1 });
  inputs = feed(
    session.inputNames,
    session.inputMetadata.map(({ shape }) => shape),
  ).map(([name, shape]) => [
    name,
    new Tensor('float32', new Float32Array(shape.reduce((a, b) => a * b, 1)).fill(1), shape),
  ]);
  await session.run(Object.fromEntries(inputs));
}
// Without what the collector has not looked at yet.
console.log(Number(/^VmRSS:\s*(\d+)/m.exec(readFileSync('/proc/self/status', 'utf8'))[1]) * 1024);
process.exit(0);
