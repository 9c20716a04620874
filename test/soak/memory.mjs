// Memory stays flat:
//   node --expose-gc --min-semi-space-size=16 --max-semi-space-size=16 test/soak/memory.mjs [--short]
// V8 doubles its young generation when it likes (seen after 1.6 million runs: a step of 8 MB in RSS with
// the heap in use unchanged); fixed from the start, what moves RSS is ours.
import { fileURLToPath } from 'node:url';
import { loadModel, stats, trim } from '../../dist/index.js';

const short = process.argv.includes('--short');
const model = (name) =>
  fileURLToPath(new URL(`../../models/bench/${name}/1/model.onnx`, import.meta.url));
const rssMb = () => {
  globalThis.gc?.();
  return process.memoryUsage().rss / 2 ** 20;
};

/** Slope of the last half in MB per 1,000 samples' worth of x, and the spread around it. */
function lastHalf(samples) {
  const half = samples.slice(samples.length >> 1);
  const n = half.length;
  const meanX = (n - 1) / 2;
  const meanY = half.reduce((a, b) => a + b, 0) / n;
  let top = 0;
  let bottom = 0;
  half.forEach((y, x) => {
    top += (x - meanX) * (y - meanY);
    bottom += (x - meanX) ** 2;
  });
  const slope = top / bottom;
  const noise = Math.sqrt(
    half.reduce((a, y, x) => a + (y - meanY - slope * (x - meanX)) ** 2, 0) / (n - 2),
  );
  // The standard error of a slope: what noise alone makes of it.
  const error = noise / Math.sqrt(bottom);
  return { growthMb: slope * (n - 1), errorMb: error * (n - 1), first: half[0], last: half.at(-1) };
}

async function runs(name, count, size, options) {
  const loaded = await loadModel(model(name), options);
  const x = { dtype: 'float32', shape: [1, size], data: new Float32Array(size) };
  // The first runs touch V8's young generation and compile: that is not what is asked here.
  for (let done = 0; done < count / 2; done += 16) {
    await Promise.all(Array.from({ length: 16 }, () => loaded.run({ x })));
  }
  const samples = [];
  const step = Math.max(1, Math.floor(count / 100));
  const start = performance.now();
  for (let done = 0; done < count;) {
    const end = Math.min(count, done + step);
    while (done < end) {
      const width = Math.min(16, end - done);
      await Promise.all(Array.from({ length: width }, () => loaded.run({ x })));
      done += width;
    }
    samples.push(rssMb());
  }
  await loaded.close();
  const half = lastHalf(samples);
  // Flat: it grew by less than a megabyte, or by no more than noise explains. In the two seconds of the
  // short form one step of malloc's or V8's is 2 MB; it is there to see what leaks 40 bytes a run.
  const flat = half.growthMb < Math.max(short ? 4 : 1, 3 * half.errorMb);
  console.log(
    `${name} (inline ${options.inline}), ${count} runs in ${((performance.now() - start) / 1000).toFixed(1)} s: ` +
      `RSS ${samples[0].toFixed(1)} at first, ${half.first.toFixed(1)} at half, ${half.last.toFixed(1)} MB at the end; ` +
      `last half grew ${half.growthMb.toFixed(2)} MB (standard error ${half.errorMb.toFixed(2)}): ${flat ? 'flat' : 'GROWS'}`,
  );
  return flat;
}

async function loads(count) {
  const after = [];
  for (let i = 0; i < count; i++) {
    const loaded = await loadModel(model('weights25'));
    const x = { dtype: 'float32', shape: [1, 2560], data: new Float32Array(2560) };
    await loaded.run({ x });
    await loaded.close();
    after.push(rssMb());
  }
  const ratio = after.at(-1) / after[2];
  const fine = ratio <= 1.1;
  console.log(
    `weights25, ${count} loads and closes: RSS ${after[2].toFixed(1)} MB after the third, ` +
      `${after.at(-1).toFixed(1)} at the end, ${ratio.toFixed(3)}x: ${fine ? 'back' : 'GROWS'}`,
  );
  return fine;
}

const results = [
  await runs('tiny', short ? 200_000 : 1_000_000, 4, { inline: 'auto' }),
  await runs('tiny', short ? 200_000 : 1_000_000, 4, { inline: 'never' }),
  await runs('mlp', 20_000, 784, { inline: 'auto' }),
  await runs('mlp', 20_000, 784, { inline: 'never' }),
  await loads(short ? 15 : 100),
];
trim();
const { leases, models, arena } = stats();
console.log(`left: ${leases} leases, ${models.length} sessions, ${arena.leasedBytes} bytes leased`);
if (results.includes(false) || leases || models.length) process.exit(1);
