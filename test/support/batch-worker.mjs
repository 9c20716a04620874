// A worker that runs tiny once, and says what came out.
import { parentPort, workerData } from 'node:worker_threads';
import { loadModel } from '../../dist/index.js';

const model = await loadModel(workerData.path, workerData.options);
const x = { dtype: 'float32', shape: [1, 4], data: new Float32Array(4).fill(workerData.value) };
const { y } = await model.run({ x });
parentPort.postMessage(y.data[0]);
