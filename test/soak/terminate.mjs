// worker.terminate() in the middle of runs: node test/soak/terminate.mjs [times]
// The process lives, no lease and no session is left.
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import { stats } from '../../dist/index.js';

const worker = new URL('../support/worker.mjs', import.meta.url);
const model = (name) =>
  fileURLToPath(new URL(`../../models/bench/${name}/1/model.onnx`, import.meta.url));

const kinds = [
  { path: model('mlp'), mode: 'plain', options: { inline: 'never' } },
  { path: model('mlp'), mode: 'shared', options: { inline: 'never', lanes: 2 } },
  { path: model('mlp'), mode: 'leased', options: {} },
  { path: model('resnet'), mode: 'shared', options: { lanes: 2 } },
  { path: model('tiny'), mode: 'plain', options: { inline: 'never' } },
  { path: model('tiny'), mode: 'leased', options: {} },
];

/** Starts and ends workers, two at a time so that they share sessions. */
export async function terminateOften(times) {
  let terminated = 0;
  const one = async (i) => {
    const kind = kinds[i % kinds.length];
    const thread = new Worker(worker, { workerData: kind });
    const ended = once(thread, 'exit');
    thread.on('error', (error) => {
      throw error;
    });
    await once(thread, 'message');
    // 0 to 6 ms into the runs, a little more each time.
    await new Promise((resolve) => setTimeout(resolve, (i % 13) / 2));
    await thread.terminate();
    await ended;
    terminated++;
  };
  for (let i = 0; i < times; i += 2) {
    await Promise.all([one(i), ...(i + 1 < times ? [one(i + 1)] : [])]);
  }
  const { leases, models } = stats();
  return { terminated, leases, models: models.length };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const times = Number(process.argv[2] ?? 500);
  const start = performance.now();
  const result = await terminateOften(times);
  console.log(`${JSON.stringify(result)} in ${((performance.now() - start) / 1000).toFixed(0)} s`);
  if (result.leases !== 0 || result.models !== 0 || result.terminated !== times) process.exit(1);
}
