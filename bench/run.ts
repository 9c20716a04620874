// All questions, one after the other: npm run bench. Exits with 1 when a bar is missed.
import os from 'node:os';
import { async } from './async.js';
import { batching } from './batching.js';
import { overGrpc } from './grpc.js';
import { http } from './http.js';
import { json } from './json.js';
import { overhead } from './overhead.js';
import { serving } from './serving.js';
import { sharedMemory } from './shared-memory.js';
import { holds } from './statistics.js';
import { swaps } from './swaps.js';
import { throughput } from './throughput.js';

console.log(
  `${os.cpus()[0]?.model.trim()}, ${os.availableParallelism()} processors, Node ${process.versions.node}, ` +
    `${os.type()} ${os.release()}\n`,
);
const bars = [];
for (const [title, question] of [
  ['What do the synchronous calls add to the C call?', overhead],
  ['What does an asynchronous run cost, and whom does it hold up?', async],
  ['Is compute lost on the way?', throughput],
  ['Do batches pay, and does a latency target find them?', batching],
  ['What does a request cost over HTTP?', http],
  ['What does a request cost over gRPC?', overGrpc],
  ['What does JSON cost?', json],
  ['What does an image cost that need not be sent?', sharedMemory],
  ['Is compute lost when large models are served?', serving],
  ['Do versions come and go unnoticed?', swaps],
] as const) {
  console.log(`# ${title}`);
  bars.push(...(await question()));
  console.log();
}
const missed = bars.filter((bar) => !holds(bar));
console.log(`${bars.length - missed.length} of ${bars.length} bars hold`);
process.exit(missed.length ? 1 : 0);
