// Truncated and random model files: node test/soak/mutate.mjs [mutations]
// Each is refused with a ModelError, or loads and runs or fails with a typed error; the process lives.
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { loadModel, stats, TercelError } from '../../dist/index.js';

const digits = new Uint8Array(
  readFileSync(fileURLToPath(new URL('../../models/digits/1/model.onnx', import.meta.url))),
);

/** mulberry32: the same mutations on every machine. */
function random(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t = (t + Math.imul(t ^ (t >>> 7), t | 61)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

function mutate(i) {
  const next = random(i + 1);
  const pick = (n) => Math.floor(next() * n);
  switch (i % 4) {
    case 0: // cut short
      return digits.slice(0, pick(digits.length));
    case 1: {
      // nothing but noise
      return Uint8Array.from({ length: 1 + pick(4000) }, () => pick(256));
    }
    case 2: {
      // a few bytes changed, mostly where the structure is
      const bytes = digits.slice();
      for (let k = 0; k <= pick(8); k++)
        bytes[pick(next() < 0.7 ? 2000 : bytes.length)] = pick(256);
      return bytes;
    }
    default: {
      // a piece lost from within
      const at = pick(digits.length);
      const lost = 1 + pick(200);
      return Uint8Array.from([...digits.subarray(0, at), ...digits.subarray(at + lost)]);
    }
  }
}

export async function mutateModels(count) {
  const result = { refused: 0, ran: 0, failed: 0, untyped: [] };
  const image = { dtype: 'float32', shape: [1, 1, 8, 8], data: new Float32Array(64) };
  for (let i = 0; i < count; i++) {
    let model;
    try {
      model = await loadModel(mutate(i));
    } catch (error) {
      if (error instanceof TercelError && error.code === 'MODEL') result.refused++;
      else result.untyped.push(`${i}: ${error}`);
      continue;
    }
    try {
      await model.run({ image }, { timeoutMs: 5000 });
      model.runSync({ image });
      result.ran++;
    } catch (error) {
      if (error instanceof TercelError) result.failed++;
      else result.untyped.push(`${i}: ${error}`);
    }
    await model.close();
  }
  const { leases, models } = stats();
  return { ...result, leases, models: models.length };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const result = await mutateModels(Number(process.argv[2] ?? 1000));
  console.log(JSON.stringify(result));
  if (result.untyped.length || result.leases || result.models) process.exit(1);
}
