// Is this checkout as fast as another one? tsx bench/checkouts.ts OTHER [LAUNCHES] [PART OF A CASE'S NAME]
//
// Both are built (npm run build) and take turns of a second, mlp over HTTP (binary, JSON), over gRPC and in process:
// the machine is shared and noisy, and turns next to each other have the same noise. Where a process's heap and
// libraries come to lie makes some per cent of its speed for as long as it lives: each launch has processes of its
// own, and gives one ratio, the median of its turns'. Needs wrk and h2load.
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { framedRequest, loadGrpc } from './grpc.js';
import { binaryRequest, jsonRequest, load, Server, type WrkRequest } from './load.js';
import { benchCase } from './models.js';
import { median, print, ratios, show, type Bar } from './statistics.js';

const LAUNCHES = 7;
const TURNS = 8;
const WARM_UP_TURNS = 2;
const CALL_MS = 500;
const LEAST = 0.98;

interface Figures {
  perSecond: number;
  /** Of processor time a request, of the server or the process that calls. */
  cpuUs: number;
}

/** One case: how a checkout's process for it is started, and one turn of it. */
interface Case {
  name: string;
  start(root: string): Promise<Server>;
  turn(server: Server): Figures | Promise<Figures>;
}

/** A server's figures while `work` loads it for a second. */
function whileLoaded(work: (server: Server) => { perSecond: number }): Case['turn'] {
  return (server) => {
    const before = server.cpu();
    const { perSecond } = work(server);
    return { perSecond, cpuUs: ((server.cpu() - before) * 1e6) / perSecond };
  };
}

function cases(): Case[] {
  const { path: model, inputs } = benchCase('mlp');
  const { data } = Object.values(inputs)[0] as { data: Float32Array };
  const message = path.join(mkdtempSync(path.join(tmpdir(), 'tercel-checkouts-')), 'request');
  writeFileSync(message, framedRequest(data));
  const http = (name: string, request: WrkRequest, connections: number): Case => ({
    name: `HTTP ${name}, ${connections} connections`,
    start: (root) => Server.startIn(root, 'tercel', model),
    turn: whileLoaded(({ url }) => load(url, request, connections, 1)),
  });
  const grpc = (connections: number, streams: number): Case => ({
    name: `gRPC, ${connections} connections of ${streams} calls`,
    start: (root) => Server.startIn(root, 'grpc', model),
    turn: whileLoaded(({ port }) => loadGrpc(port, message, connections, 1, streams)),
  });
  const called = (name: string, mode: string): Case => ({
    name: `in process, ${name}`,
    start: (root) => Server.start('calls', path.join(root, 'dist'), model),
    turn: async (server) => JSON.parse(await server.ask(`${mode} ${CALL_MS}`)) as Figures,
  });
  return [
    http('binary', binaryRequest(inputs), 64),
    http('binary', binaryRequest(inputs), 1),
    http('JSON', jsonRequest(inputs), 64),
    grpc(8, 8),
    grpc(1, 1),
    called('run(), 64 in flight', 'async-64'),
    called('run(), 1 in flight', 'async-1'),
    called('runSync()', 'sync'),
    called('binding.runSync()', 'binding'),
  ];
}

/** What one launch of both says: medians over its turns, and of their ratios, after by before. */
async function launch(one: Case, before: string, after: string): Promise<Record<string, number>> {
  const servers = [await one.start(before), await one.start(after)] as const;
  const figures: [Figures[], Figures[]] = [[], []];
  try {
    for (let turn = 0; turn < WARM_UP_TURNS + TURNS; turn++) {
      for (const which of turn % 2 ? ([0, 1] as const) : ([1, 0] as const)) {
        const made = await one.turn(servers[which]);
        if (turn >= WARM_UP_TURNS) figures[which].push(made);
      }
    }
  } finally {
    for (const server of servers) server.stop();
  }
  const of = (which: 0 | 1, field: keyof Figures): number[] => figures[which].map((f) => f[field]);
  return {
    rate: median(ratios(of(1, 'perSecond'), of(0, 'perSecond'))),
    cpu: median(ratios(of(1, 'cpuUs'), of(0, 'cpuUs'))),
    perSecond: median(of(0, 'perSecond')),
    cpuUs: median(of(0, 'cpuUs')),
  };
}

export async function checkouts(other: string, launches = LAUNCHES, part = ''): Promise<Bar[]> {
  const before = path.resolve(other);
  const after = fileURLToPath(new URL('..', import.meta.url));
  const bars: Bar[] = [];
  for (const one of cases().filter(({ name }) => name.includes(part))) {
    const all: Record<string, number>[] = [];
    for (let i = 0; i < launches; i++) all.push(await launch(one, before, after));
    const of = (field: string): number[] => all.map((figures) => figures[field]!);
    bars.push({
      name: one.name,
      value: median(of('rate')),
      text: `${show(of('rate'), 3)}x`,
      values: of('rate'),
      bar: LEAST,
      direction: 'at least',
    });
    print(bars.at(-1)!);
    console.log(
      `    before: ${show(of('perSecond'), 0)}/s, ${show(of('cpuUs'), 1)} us of processor a request; ` +
        `of that after ${show(of('cpu'), 3)}x`,
    );
  }
  return bars;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [, , other, launches, part] = process.argv;
  if (!other) throw new Error('usage: tsx bench/checkouts.ts OTHER [LAUNCHES] [PART]');
  await checkouts(other, launches === undefined ? undefined : Number(launches), part);
}
