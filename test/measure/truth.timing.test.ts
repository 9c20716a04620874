// What the harness says, against servers whose latencies are known.
import { spawn, type ChildProcess } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { Histogram, HttpSubject, type Arrivals, type WindowResult } from 'tercel/measure';
import { afterEach, describe, expect, it } from 'vitest';

const program = fileURLToPath(new URL('../support/slow-server.mjs', import.meta.url));
const servers: ChildProcess[] = [];

afterEach(() => {
  for (const server of servers.splice(0)) server.kill('SIGKILL');
});

async function start(kind: string): Promise<{ port: string; subject: HttpSubject }> {
  const subject = (port: string, path: string): HttpSubject =>
    new HttpSubject(new URL(`http://127.0.0.1:${port}`), [
      { path, headers: {}, body: [Buffer.from('body')] },
    ]);
  const child = spawn(process.execPath, [program, kind], { stdio: ['ignore', 'pipe', 'inherit'] });
  servers.push(child);
  for await (const port of createInterface(child.stdout)) {
    // Node compiles what it runs often; that takes milliseconds.
    await subject(port, '/warm').run({
      arrivals: { kind: 'constant', rate: 3000 },
      durationMs: 500,
      drainMs: 1000,
      seed: 1,
      signal,
    });
    return { port, subject: subject(port, '/') };
  }
  throw new Error('the server did not start');
}

const signal = new AbortController().signal;
const RATE = 200;
const SECONDS = 3;

function load(subject: HttpSubject, arrivals: Arrivals): Promise<WindowResult> {
  return subject.run({ arrivals, durationMs: SECONDS * 1000, drainMs: 5000, seed: 7, signal });
}

/** When each request was due, and when the server answered it. */
async function truthOf(port: string, result: WindowResult): Promise<number[]> {
  const answered = (await (await fetch(`http://127.0.0.1:${port}/log`)).json()) as number[];
  return answered.map((at, i) => at - (result.startMs + ((i + 1) * 1000) / RATE));
}

function expectTruth(result: WindowResult, truth: number[]): void {
  const exact = new Histogram();
  for (const ms of truth) exact.record(ms * 1e6);
  // The first is due after one distance, the last before the end.
  expect([result.completed, truth.length]).toEqual([RATE * SECONDS - 1, RATE * SECONDS - 1]);
  for (const percent of [50, 90, 99, 99.9, 100]) {
    const ratio = result.latency.percentile(percent) / exact.percentile(percent);
    const what = `p${percent}: ${result.latency.percentile(percent) / 1e6} ms, in truth ${exact.percentile(percent) / 1e6}`;
    expect(ratio, what).toBeGreaterThan(0.98);
    expect(ratio, what).toBeLessThan(1.02);
  }
}

describe('an open loop', () => {
  const measure = async (kind: string): Promise<number[]> => {
    const { port, subject } = await start(kind);
    const result = await load(subject, { kind: 'constant', rate: RATE });
    const truth = await truthOf(port, result);
    expectTruth(result, truth);
    return truth;
  };
  const near = (truth: number[], ms: number): number =>
    truth.filter((have) => have > ms && have < ms * 1.2).length / truth.length;

  it('finds a constant latency', async () => {
    expect(near(await measure('constant'), 50)).toBeGreaterThan(0.95);
  });

  it('finds two latencies, and how often each is', async () => {
    const truth = await measure('bimodal');
    expect(near(truth, 25)).toBeCloseTo(0.8, 1);
    expect(near(truth, 100)).toBeCloseTo(0.2, 1);
  });

  it('counts every request that a stall made wait, from when it was due', async () => {
    const truth = await measure('stall');
    expect(truth.filter((ms) => ms > 60).length).toBeGreaterThan(95);
    expect(Math.max(...truth)).toBeGreaterThan(500);
  });

  it('has Poisson arrivals: the distances vary as their mean', async () => {
    const { subject } = await start('echo');
    const result = await load(subject, { kind: 'poisson', rate: 1000 });
    expect(result.completed).toBeGreaterThan(3000 - 5 * Math.sqrt(3000));
    expect(result.completed).toBeLessThan(3000 + 5 * Math.sqrt(3000));
  });
});

describe('a histogram', () => {
  it('knows each value within 0.4 %', () => {
    for (let ns = 1; ns < 3e12; ns = Math.ceil(ns * 1.37)) {
      const histogram = new Histogram();
      histogram.record(ns);
      histogram.maxNs = Infinity; // the maximum is exact otherwise
      expect(Math.abs(histogram.percentile(50) / ns - 1)).toBeLessThan(0.004);
    }
  });

  it('is the same after a file, and adds up', () => {
    const histogram = new Histogram();
    for (const ns of [5, 700, 80_000, 9e6, 1e10]) histogram.record(ns);
    const again = Histogram.from(histogram.toJSON(), histogram.maxNs);
    again.add(histogram);
    expect(again.count).toBe(10);
    expect(again.percentile(100)).toBe(1e10);
    expect(again.percentile(0)).toBe(5);
    expect(new Histogram().percentile(99)).toBe(0);
  });
});
