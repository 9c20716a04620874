// tercel profile on a convolutional network: its sums are right, and its files open.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { flopsOf, readMappings, type Profile } from 'tercel/measure';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { COMMAND_MS } from '../support/wait.js';

const root = fileURLToPath(new URL('../..', import.meta.url));
const program = path.join(root, 'dist/cli/main.js');
const model = path.join(root, 'models/bench/resnet/1/model.onnx');
const WEIGHTS = 11_689_512 * 4; // ResNet-18's, less what was folded into the convolutions

describe('a profile', () => {
  let folder: string;
  let made: Profile;
  let text: string;

  beforeAll(() => {
    folder = mkdtempSync(path.join(tmpdir(), 'tercel-profile-test-'));
    const { status, stdout, stderr } = spawnSync(
      process.execPath,
      [
        program,
        'profile',
        model,
        '--runs',
        '10',
        '--cycles',
        '3',
        '--quiet',
        '-o',
        path.join(folder, 'p.json'),
        '--html',
        path.join(folder, 'p.html'),
        '--trace',
        path.join(folder, 'p.trace.json'),
      ],
      { encoding: 'utf8', timeout: COMMAND_MS },
    );
    expect([status, stderr]).toEqual([0, '']);
    text = stdout;
    made = JSON.parse(readFileSync(path.join(folder, 'p.json'), 'utf8')) as Profile;
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  it('accounts for all resident memory, most of the growth with an owner', () => {
    for (const { account } of made.memory.moments) {
      const { rss, ...owners } = account!;
      expect(Object.values(owners).reduce((sum, bytes) => sum + bytes, 0)).toBe(rss);
      expect(Math.min(...Object.values(owners))).toBeGreaterThanOrEqual(0);
    }
    expect(made.memory.explained).toBeGreaterThan(0.95);
    expect(Math.abs(made.memory.weightsBytes / WEIGHTS - 1)).toBeLessThan(0.05);
    expect(made.memory.growthBytes).toBeGreaterThan(made.memory.weightsBytes);
    expect(made.memory.growthBytes).toBeLessThan(made.memory.weightsBytes * 1.6);
  });

  it('follows every allocation: the peak is made up of its parts, and runs give back what they take', () => {
    const { peak, timeline, perRun, dropped, kinds } = made.memory.allocations;
    expect(dropped).toBe(0);
    expect(peak.madeUpOf.reduce((sum, { bytes }) => sum + bytes, 0)).toBe(peak.bytes);
    expect(Math.max(...timeline.map(([, bytes]) => bytes))).toBe(peak.bytes);
    expect(timeline.at(-1)![1]).toBe(0);
    expect(perRun.count).toBeLessThanOrEqual(2); // the plan's one block, and no more
    expect(kinds.find(({ kind }) => kind === 'of a run')!.bytes).toBeGreaterThan(1e6);
    expect(kinds.find(({ kind }) => kind === 'kept by runs')).toBeUndefined();
  });

  it('says where the time of a request goes, the run most of all', () => {
    const { stages, plainUs } = made.time;
    expect(stages.map(({ name }) => name.split(':')[0])).toEqual([
      'parse',
      'gather',
      'queue',
      'run',
      'scatter',
      'encode',
    ]);
    expect(Math.min(...stages.map(({ us }) => us))).toBeGreaterThanOrEqual(0);
    const run = stages.find(({ name }) => name === 'run')!.us;
    expect(run).toBeGreaterThan(plainUs / 3);
    expect(stages.find(({ name }) => name.startsWith('parse'))!.us).toBeLessThan(run);
  });

  it('gives each operator its time, and together they are the run', () => {
    const { operators, operatorsUs, runUs, plainUs } = made.time;
    expect(operators.reduce((sum, { us }) => sum + us, 0)).toBeCloseTo(operatorsUs, 3);
    expect(operatorsUs).toBeLessThanOrEqual(runUs);
    // 0.99 where nothing else runs; here other tests do, and a turn of theirs is a quarter of a run.
    expect(operatorsUs / runUs).toBeGreaterThan(0.9);
    // How near they are to a plain run is measured where nothing else runs (README's figures).
    expect(plainUs).toBeGreaterThan(1000);
    expect(operators.filter(({ operator }) => operator === 'Conv').length).toBe(20);
    // 1.8 GFLOP a multiply-add, as the literature has it for ResNet-18.
    const flops = operators.reduce((sum, one) => sum + (one.flops ?? 0), 0);
    expect(flops / 3.6e9).toBeGreaterThan(0.95);
    expect(flops / 3.6e9).toBeLessThan(1.05);
    expect(made.roof.flopsPerSecond).toBeGreaterThan(1e9);
    expect(made.roof.bytesPerSecond).toBeGreaterThan(1e9);
  });

  it('says what to do about it, and opens as a trace', () => {
    expect(text).toContain('Conv nodes');
    expect(text).toContain('together');
    const { traceEvents } = JSON.parse(readFileSync(path.join(folder, 'p.trace.json'), 'utf8')) as {
      traceEvents: { ph: string; ts?: number; dur?: number }[];
    };
    expect(
      traceEvents.filter(({ ph }) => ph === 'X').every(({ ts, dur }) => ts! >= 0 && dur! >= 0),
    ).toBe(true);
    expect(traceEvents.some(({ ph }) => ph === 'C')).toBe(true);
    expect(readFileSync(path.join(folder, 'p.html'), 'utf8')).not.toMatch(/(src|href)="(?!data:)/);
  });
});

describe('parts of it', () => {
  it('count floating-point operations from shapes', () => {
    expect(
      flopsOf(
        'Conv',
        [
          [1, 3, 8, 8],
          [4, 3, 3, 3],
        ],
        [[1, 4, 8, 8]],
      ),
    ).toBe(2 * 256 * 27);
    expect(
      flopsOf(
        'Gemm',
        [
          [2, 784],
          [784, 128],
        ],
        [[2, 128]],
      ),
    ).toBe(2 * 2 * 784 * 128);
    expect(
      flopsOf(
        'Gemm',
        [
          [2, 784],
          [128, 784],
        ],
        [[2, 128]],
      ),
    ).toBe(2 * 2 * 784 * 128);
    expect(
      flopsOf(
        'MatMul',
        [
          [2, 12, 64, 32],
          [2, 12, 32, 64],
        ],
        [[2, 12, 64, 64]],
      ),
    ).toBe(2 * 2 * 12 * 64 * 64 * 32);
    expect(flopsOf('Gather', [[10, 4], [2]], [[2, 4]])).toBeNull();
  });

  it('read /proc/self/smaps', () => {
    const mappings = readMappings(
      [
        '55d0c1a00000-55d0c1c00000 rw-p 00000000 00:00 0                          [heap]',
        'Size:               2048 kB',
        'Rss:                 512 kB',
        '7f0000000000-7f0000100000 r-xp 00001000 fd:00 1234                      /usr/lib/a file.so',
        'Rss:                  64 kB',
      ].join('\n'),
    );
    expect(mappings).toEqual([
      {
        start: 0x55d0c1a00000,
        end: 0x55d0c1c00000,
        permissions: 'rw-p',
        inode: 0,
        path: '[heap]',
        rss: 512 * 1024,
      },
      {
        start: 0x7f0000000000,
        end: 0x7f0000100000,
        permissions: 'r-xp',
        inode: 1234,
        path: '/usr/lib/a file.so',
        rss: 64 * 1024,
      },
    ]);
  });
});
