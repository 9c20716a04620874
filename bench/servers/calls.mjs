// A model called in this process, by the build that is named.
//
//   node calls.mjs DIST MODEL    prints 0; then for each line "MODE MS" {"perSecond", "cpuUs"}
//
// MODE: sync, binding, or async with a number of runs in flight (async-1, async-64).
import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';

const [, , dist, path] = process.argv;
const { loadModel } = await import(pathToFileURL(`${dist}/index.js`).href);
const model = await loadModel(path);
const inputs = Object.fromEntries(
  model.inputs.map(({ name, shape }) => {
    const dims = shape.map((dim) => (typeof dim === 'number' ? dim : 1));
    const data = new Float32Array(dims.reduce((a, b) => a * b, 1)).fill(0.5);
    return [name, { dtype: 'float32', shape: dims, data }];
  }),
);
const binding = model.bind(
  Object.fromEntries(model.inputs.map(({ name }) => [name, inputs[name].shape])),
);

const modes = {
  sync: (until) => {
    let count = 0;
    for (; performance.now() < until; count++) model.runSync(inputs);
    return count;
  },
  binding: (until) => {
    let count = 0;
    for (; performance.now() < until; count++) binding.runSync();
    return count;
  },
  async: async (until, inFlight) => {
    let count = 0;
    const caller = async () => {
      for (; performance.now() < until; count++) await model.run(inputs);
    };
    await Promise.all(Array.from({ length: inFlight }, caller));
    return count;
  },
};

console.log(0);
for await (const line of createInterface(process.stdin)) {
  const [mode, ms] = line.split(' ');
  const [kind, inFlight = '1'] = mode.split('-');
  const cpu = process.cpuUsage();
  const start = performance.now();
  const count = await modes[kind](start + Number(ms), Number(inFlight));
  const seconds = (performance.now() - start) / 1000;
  const { user, system } = process.cpuUsage(cpu);
  console.log(JSON.stringify({ perSecond: count / seconds, cpuUs: (user + system) / count }));
}
