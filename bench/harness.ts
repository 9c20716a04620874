// What does the load generator itself cost, and does it hold anything up? tsx bench/harness.ts
//
// `tercel bench --url` and wrk in turns: against an idle echo, where most of what is measured is the
// generator's own, one request at a time; and against Tercel's server under load.
import { fileURLToPath } from 'node:url';
import { HttpSubject } from 'tercel/measure';
import { binaryRequest, load, Server, type WrkRequest } from './load.js';
import { benchCase } from './models.js';
import { median, print, ratios, show, type Bar } from './statistics.js';

const ROUNDS = 5;
const SECONDS = 3;

interface Figures {
  perSecond: number;
  p50Us: number;
  /** Of processor time a request. */
  cpuUs: number;
}

async function ours(
  url: string,
  { body, jsonBytes }: WrkRequest,
  connections: number,
): Promise<Figures> {
  const at = new URL(url);
  const headers = {
    'content-type': 'application/octet-stream',
    'inference-header-content-length': String(jsonBytes),
  };
  const subject = new HttpSubject(at, [{ path: at.pathname, headers, body: [body] }]);
  const result = await subject.run({
    arrivals: { kind: 'closed', concurrency: connections },
    durationMs: SECONDS * 1000,
    drainMs: 1000,
    seed: 1,
    signal: new AbortController().signal,
  });
  if (Object.keys(result.errors).length > 0) throw new Error(JSON.stringify(result.errors));
  return {
    perSecond: result.perSecond,
    p50Us: result.latency.percentile(50) / 1000,
    cpuUs: (result.cpuMs * 1000) / result.completed,
  };
}

function wrks(url: string, request: WrkRequest, connections: number): Figures {
  const { perSecond, p50Us, cpu, errors } = load(url, request, connections, SECONDS);
  if (errors) throw new Error(`${errors} errors`);
  return { perSecond, p50Us, cpuUs: (cpu * 1e6) / perSecond };
}

export async function harness(): Promise<Bar[]> {
  const { path, inputs } = benchCase('mlp');
  const request = binaryRequest(inputs);
  const bars: Bar[] = [];
  for (const [name, server, connections] of [
    ['an idle echo, one at a time', await Server.start('echo'), 1],
    ['mlp, 64 connections', await Server.start('tercel', path), 64],
  ] as const) {
    const figures: Record<'ours' | 'wrk', Figures[]> = { ours: [], wrk: [] };
    for (let round = -1; round < ROUNDS; round++) {
      const wrk = wrks(server.url, request, connections);
      const own = await ours(server.url, request, connections);
      if (round < 0) continue;
      figures.wrk.push(wrk);
      figures.ours.push(own);
    }
    server.stop();
    for (const [who, list] of Object.entries(figures)) {
      console.log(
        `${name}, ${who}: ${show(
          list.map((f) => f.perSecond),
          0,
        )}/s, p50 ${show(
          list.map((f) => f.p50Us),
          1,
        )} us, ` +
          `processor time ${show(
            list.map((f) => f.cpuUs),
            1,
          )} us a request`,
      );
    }
    const values = ratios(
      figures.ours.map((f) => f.perSecond),
      figures.wrk.map((f) => f.perSecond),
    );
    bars.push({
      name: `load generator against ${name}, of wrk's throughput`,
      value: median(values),
      text: `${show(values)}x, ${show(
        figures.ours.map((f) => f.cpuUs),
        1,
      )} us of processor a request`,
      values,
      bar: 0.8,
      direction: 'at least',
    });
    print(bars.at(-1)!);
  }
  return bars;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await harness();
