// A worker that runs a model until it is told to stop, or is ended.
import { parentPort, workerData } from 'node:worker_threads';
import { allocate, loadModel, stats } from '../../dist/index.js';

const { path, options, mode, width = 4 } = workerData;
const model = await loadModel(path, options);
const shape = model.inputs[0].shape.map((dim) => (typeof dim === 'string' ? 1 : dim));
const count = shape.reduce((a, b) => a * b, 1);
const data =
  mode === 'shared' ? new Float32Array(new SharedArrayBuffer(count * 4)) : new Float32Array(count);
const x = mode === 'leased' ? allocate('float32', shape) : { dtype: 'float32', shape, data };
const inputs = { [model.inputs[0].name]: x };

if (mode === 'once') {
  const result = await model.run(inputs);
  parentPort.postMessage({ sessions: stats().models.length, outputs: Object.keys(result) });
  await model.close();
} else {
  const binding = model.bind({ [model.inputs[0].name]: shape });
  parentPort.postMessage('running');
  const loop = async (run) => {
    for (;;) {
      await run();
      // Inline runs settle in microtasks alone: let the worker hear what it is told.
      await new Promise((resolve) => setImmediate(resolve));
    }
  };
  await Promise.all([
    ...Array.from({ length: width }, () => loop(() => model.run(inputs))),
    loop(() => binding.run()),
    loop(() => model.runSync(inputs)),
  ]);
}
