// A model's memory, for another program to look at from outside: prints what Tercel's instruments say, and
// ends without giving anything back.
//
//   node memory.mjs start|load|run MODEL MEMORY INPUTS    MEMORY as in loadModel(); INPUTS as JSON:
//   {name: {dtype, shape}}, filled with ones
import { allocate, loadModel, stats } from 'tercel';
// Of the build, as the package: an environment has one.
import { allocationsOf } from '../../dist/runtime/observe.js';
import { native } from '../../dist/native.js';

const RUNS = 3;
const [, , until, path, memory, shapes] = process.argv;
const arrays = { float32: Float32Array, int64: BigInt64Array, int32: Int32Array };
const inputs = {};
for (const [name, { dtype, shape }] of Object.entries(JSON.parse(shapes))) {
  const data = new arrays[dtype](shape.reduce((a, b) => a * b, 1));
  inputs[name] = { dtype, shape, data: data.fill(dtype === 'int64' ? 1n : 1) };
}
allocate('float32', [1]); // starts the runtime

/** Bytes allocated: from the C library's heap, and from the arena. */
function allocated() {
  globalThis.gc();
  const { usedBytes, mappedBytes } = native.mallocUse();
  return usedBytes + mappedBytes + stats().arena.leasedBytes;
}

const before = allocated();
const said = { loaded: 0, peak: 0 };
if (until !== 'start') {
  const model = await loadModel(path, { memory, inline: 'always' });
  said.loaded = allocated() - before;
  if (until === 'run') {
    // The log is of the arena, and has memory of its own.
    if (memory === 'tercel') native.startAllocationLog(1 << 20);
    for (let i = 0; i < RUNS; i++) model.runSync(inputs);
    const log = native.stopAllocationLog() ?? { events: [], dropped: 0 };
    if (log.dropped > 0) throw new Error(`the log had no room for ${log.dropped} events`);
    // The most that was alive at once of what the runs allocated.
    said.peak = said.loaded + allocationsOf(log, RUNS).peakBytes;
  }
}
console.log(JSON.stringify(said));
process.reallyExit(0);
