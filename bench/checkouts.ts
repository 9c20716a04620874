// Is this checkout as fast as another one? tsx bench/checkouts.ts OTHER [ROUNDS]
//
// Both are built (npm run build) and take turns, mlp over HTTP (binary, JSON), over gRPC and in process. The
// ratios are of rounds next to each other: the machine is shared and noisy. Which of the two comes first changes
// with each round. Needs wrk and h2load.
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { framedRequest, loadGrpc } from './grpc.js';
import { binaryRequest, jsonRequest, load, Server } from './load.js';
import { benchCase } from './models.js';
import { median, print, ratios, show, type Bar } from './statistics.js';

const SECONDS = 3;
const CALL_MS = 1500;
const LEAST = 0.98;

interface Figures {
  perSecond: number;
  /** Of processor time a request, of the server or the process that calls. */
  cpuUs: number;
}

type Measure = () => Figures | Promise<Figures>;

/** What a server uses while `work` loads it. */
function underLoad(server: Server, work: () => { perSecond: number }, seconds: number): Figures {
  const before = server.cpu();
  const { perSecond } = work();
  return { perSecond, cpuUs: ((server.cpu() - before) * 1e6) / (perSecond * seconds) };
}

/** Starts a checkout's servers; how each case is measured there, and what ends them. */
async function open(root: string): Promise<{ cases: Record<string, Measure>; stop: () => void }> {
  const { path: model, inputs } = benchCase('mlp');
  const { data } = Object.values(inputs)[0] as { data: Float32Array };
  const body = path.join(mkdtempSync(path.join(tmpdir(), 'tercel-checkouts-')), 'request');
  writeFileSync(body, framedRequest(data));
  const http = await Server.startIn(root, 'tercel', model);
  const grpc = await Server.startIn(root, 'grpc', model);
  const calls = await Server.start('calls', path.join(root, 'dist'), model);
  const overHttp =
    (request: ReturnType<typeof jsonRequest>, connections: number): Measure =>
    () =>
      underLoad(http, () => load(http.url, request, connections, SECONDS), SECONDS);
  const overGrpc =
    (connections: number, streams: number): Measure =>
    () =>
      underLoad(grpc, () => loadGrpc(grpc.port, body, connections, SECONDS, streams), SECONDS);
  const called =
    (mode: string): Measure =>
    async () =>
      JSON.parse(await calls.ask(`${mode} ${CALL_MS}`)) as Figures;
  return {
    cases: {
      'HTTP binary, 64 connections': overHttp(binaryRequest(inputs), 64),
      'HTTP binary, 1 connection': overHttp(binaryRequest(inputs), 1),
      'HTTP JSON, 64 connections': overHttp(jsonRequest(inputs), 64),
      'gRPC, 8 connections of 8': overGrpc(8, 8),
      'gRPC, 1 connection of 1': overGrpc(1, 1),
      'in process, 64 in flight': called('async-64'),
      'in process, 1 in flight': called('async-1'),
      'in process, runSync()': called('sync'),
      'in process, binding.runSync()': called('binding'),
    },
    stop: () => {
      for (const server of [http, grpc, calls]) server.stop();
    },
  };
}

export async function checkouts(other: string, rounds = 9): Promise<Bar[]> {
  const [theirs, ours] = [
    await open(path.resolve(other)),
    await open(fileURLToPath(new URL('..', import.meta.url))),
  ];
  const bars: Bar[] = [];
  for (const name of Object.keys(ours.cases)) {
    const figures: { before: Figures; after: Figures }[] = [];
    for (let round = -1; round < rounds; round++) {
      const pair: Partial<(typeof figures)[0]> = {};
      const turns = [
        ['before', theirs],
        ['after', ours],
      ] as const;
      for (const [key, { cases }] of round % 2 ? turns : [...turns].reverse()) {
        pair[key] = await cases[name]!();
      }
      if (round >= 0) figures.push(pair as (typeof figures)[0]); // the first warms both up
    }
    const of = (key: 'before' | 'after', field: keyof Figures): number[] =>
      figures.map((figure) => figure[key][field]);
    const rate = ratios(of('after', 'perSecond'), of('before', 'perSecond'));
    const cpu = ratios(of('after', 'cpuUs'), of('before', 'cpuUs'));
    console.log(
      `${name}: ${show(of('before', 'perSecond'), 0)}/s before, ${show(of('after', 'perSecond'), 0)}/s after; ` +
        `processor time a request ${show(of('before', 'cpuUs'), 1)} us before, of that after ${show(cpu, 3)}x`,
    );
    bars.push({
      name,
      value: median(rate),
      text: `${show(rate, 3)}x`,
      values: rate,
      bar: LEAST,
      direction: 'at least',
    });
    print(bars.at(-1)!);
  }
  theirs.stop();
  ours.stop();
  return bars;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [, , other, rounds] = process.argv;
  if (!other) throw new Error('usage: tsx bench/checkouts.ts OTHER [ROUNDS]');
  await checkouts(other, rounds === undefined ? undefined : Number(rounds));
}
