// The arena's settings, in processes of their own: they are fixed by the first model.
import { expect, it } from 'vitest';
import { benchModel } from '../../models/generate.js';
import { fakeCuda, inProcess } from '../support/process.js';

// Weights of matrix products; a convolution's kernel packs its own outside of any allocator.
const minilm = JSON.stringify(benchModel('minilm'));
const mlp = JSON.stringify(benchModel('mlp'));

it('has a limit, past which runs and loads are refused, and what was there goes on', () => {
  expect(
    inProcess(`
      tercel.configure({ arena: { maxBytes: 32 << 20 } });
      const model = await tercel.loadModel(${mlp}, { inline: 'never' });
      const x = (n) => ({ dtype: 'float32', shape: [n, 784], data: new Float32Array(n * 784) });
      const names = [];
      try { tercel.allocate('float32', [64 << 20]); } catch (error) { names.push(error.name); }
      try { await model.run({ x: x(20000) }); } catch (error) { names.push(error.name); }
      try { await tercel.loadModel(${minilm}); } catch (error) { names.push(error.name); }
      const { y } = await model.run({ x: x(2) });
      const { arena } = tercel.stats();
      console.log(JSON.stringify({ names, shape: y.shape, inside: arena.reservedBytes <= 32 << 20 }));
    `),
  ).toEqual({
    names: ['OverloadError', 'OverloadError', 'ModelError'],
    shape: [2, 10],
    inside: true,
  });
});

it.skipIf(process.platform !== 'linux')('is pinned by the CUDA runtime on request', () => {
  // Of a runtime that pins nothing and says what it was asked for: a GPU is not needed to ask.
  expect(
    inProcess(`
      tercel.configure({ arena: { pin: ${JSON.stringify(fakeCuda)} } });
      const model = await tercel.loadModel(${mlp}, { inline: 'never' });
      const x = tercel.allocate('float32', [2, 784]);
      const { y } = await model.run({ x });
      console.log(JSON.stringify({ shape: y.shape, pinned: tercel.stats().arena.pinned }));
    `),
  ).toEqual({ shape: [2, 10], pinned: true });
});

it.skipIf(process.platform !== 'linux')('says why it cannot be pinned', () => {
  const why = (pin: string): unknown =>
    inProcess(`
      try {
        tercel.configure({ arena: { pin: ${pin} } });
        tercel.allocate('float32', [1]);
        console.log('null');
      } catch (error) {
        console.log(JSON.stringify(error.name + ': ' + error.message));
      }
    `);
  expect(why('5')).toBe(
    'InvalidInputError: arena.pin: expected true, false or the path of libcudart, got 5',
  );
  expect(why('"/nope/libcudart.so"')).toMatch(
    /^ModelError: cannot pin the arena: cannot use the CUDA runtime: \/nope\/libcudart\.so: cannot open/,
  );
  // Where there is one, it pins, or finds no GPU.
  const systems = why('true');
  if (systems !== null) {
    expect(systems).toMatch(
      /^ModelError: cannot pin the arena: cannot use the CUDA runtime: (libcudart\.so\.13: cannot open.*; libcudart\.so\.12: cannot open|.* finds no GPU)/,
    );
  }
});

it('is locked and without huge pages on request', () => {
  const { locked, hugePages, kilobytes } = inProcess(`
    import { readFileSync } from 'node:fs';
    tercel.configure({ arena: { lock: true, hugePages: false } });
    let locked = false, hugePages = true;
    try {
      tercel.allocate('float32', [4]);
      ({ locked, hugePages } = tercel.stats().arena);
    } catch (error) {
      if (error.name !== 'OverloadError') throw error; // ulimit -l
    }
    const kilobytes = Number(/VmLck:\\s+(\\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))[1]);
    console.log(JSON.stringify({ locked, hugePages, kilobytes }));
  `) as { locked: boolean; hugePages: boolean; kilobytes: number };
  if (locked) {
    expect(hugePages).toBe(false);
    expect(kilobytes).toBeGreaterThanOrEqual(16384);
  } else {
    expect(kilobytes).toBe(0);
  }
});

it('gives back what a closed model held', () => {
  const { before, during, after } = inProcess(`
    const before = tercel.stats().arena;
    const model = await tercel.loadModel(${minilm});
    const during = tercel.stats().arena;
    await model.close();
    console.log(JSON.stringify({ before, during, after: tercel.stats().arena }));
  `) as Record<string, { leasedBytes: number; reservedBytes: number }>;
  expect(before!.reservedBytes).toBe(0);
  expect(during!.leasedBytes).toBeGreaterThan(40_000_000);
  expect(after).toMatchObject({ leasedBytes: 0, reservedBytes: 0, slabs: 0 });
});
