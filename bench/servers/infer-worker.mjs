// A worker thread that runs engine.infer() on mlp: as many runs as it is told, 128 in flight.
import { parentPort, workerData } from 'node:worker_threads';
import { createEngine } from 'tercel';

const engine = createEngine();
await engine.load('mlp', workerData.path);
const x = { dtype: 'float32', shape: [1, 784], data: new Float32Array(784).fill(0.5) };
parentPort.on('message', async (runs) => {
  let left = runs;
  const client = async () => {
    while (left-- > 0) await engine.infer('mlp', { x });
  };
  await Promise.all(Array.from({ length: 128 }, client));
  parentPort.postMessage(runs);
});
