// What do interceptors cost? tsx bench/interceptors.ts
//
// mlp with binary tensors over 64 connections, by servers in turns of a second: without interceptors, with two that
// check a token and read a traceparent that differs with every request, and with the log of requests. The load is
// the same to all of them but for the values of the headers; wrk with one thread, on the same processors.
import { fileURLToPath } from 'node:url';
import { binaryRequest, load, Server, type WrkRequest } from './load.js';
import { benchCase } from './models.js';
import { median, print, ratios, show, type Bar } from './statistics.js';

const LAUNCHES = 7;
const TURNS = 8;
const WARM_UP_TURNS = 2;
const CONNECTIONS = 64;
const COPIES = 1024;

/** A token, and a traceparent of the W3C: the same for all copies, or another for each. */
function headers(differ: boolean): NonNullable<WrkRequest['headers']> {
  return {
    copies: COPIES,
    of: (i) => {
      const id = (differ ? i + 1 : 1).toString(16);
      const traceparent = `00-${id.padStart(32, '0')}-${id.padStart(16, '0')}-01`;
      return { Authorization: 'Bearer secret', traceparent };
    },
  };
}

export async function interceptors(): Promise<Bar[]> {
  const { path, inputs } = benchCase('mlp');
  const request = binaryRequest(inputs);
  const same = { ...request, headers: headers(false) };
  const modes = {
    plain: same,
    headers: { ...request, headers: headers(true) },
    verbose: same,
  };
  const launches: Record<string, number[]> = { headers: [], verbose: [] };
  const cpu: Record<string, number[]> = { headers: [], verbose: [] };
  const rates: number[] = [];
  for (let i = 0; i < LAUNCHES; i++) {
    const names = Object.keys(modes) as (keyof typeof modes)[];
    if (i % 2) names.reverse(); // who starts first has the better places
    const servers = await Promise.all(
      names.map(async (mode) => [mode, await Server.start('intercepted', path, mode)] as const),
    );
    const figures: Record<string, { perSecond: number; cpuUs: number }[]> = {};
    for (let turn = 0; turn < WARM_UP_TURNS + TURNS; turn++) {
      for (const [mode, server] of turn % 2 ? servers : [...servers].reverse()) {
        const before = server.cpu();
        const { perSecond, errors } = load(server.url, modes[mode], CONNECTIONS, 1);
        if (errors) throw new Error(`${mode}: ${errors} errors`);
        const cpuUs = ((server.cpu() - before) * 1e6) / perSecond;
        if (turn >= WARM_UP_TURNS) (figures[mode] ??= []).push({ perSecond, cpuUs });
      }
    }
    for (const [, server] of servers) server.stop();
    const of = (mode: string, field: 'perSecond' | 'cpuUs'): number[] =>
      figures[mode]!.map((figure) => figure[field]);
    rates.push(median(of('plain', 'perSecond')));
    for (const mode of ['headers', 'verbose']) {
      launches[mode]!.push(median(ratios(of(mode, 'perSecond'), of('plain', 'perSecond'))));
      cpu[mode]!.push(median(ratios(of(mode, 'cpuUs'), of('plain', 'cpuUs'))));
    }
  }
  console.log(`without interceptors: ${show(rates, 0)}/s`);
  const bars: Bar[] = [];
  for (const [mode, name, bar] of [
    ['headers', 'authorization and traceparent, of the rate without', 0.98],
    ['verbose', 'requests logged, of the rate without', 0.75],
  ] as const) {
    const values = launches[mode]!;
    const value = median(values);
    bars.push({ name, value, text: `${show(values, 3)}x`, values, bar, direction: 'at least' });
    print(bars.at(-1)!);
    console.log(`    processor time a request: ${show(cpu[mode]!, 3)}x`);
  }
  return bars;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await interceptors();
