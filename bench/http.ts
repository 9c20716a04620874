// What does a request cost over HTTP? tsx bench/http.ts
//
// mlp with binary tensors on loopback: the plain peer (Fastify and onnxruntime-node), Fastify without
// inference, and Tercel, in turns. wrk with one thread is the load generator, on the same processors.
import { fileURLToPath } from 'node:url';
import { binaryRequest, load, Server, type LoadResult } from './load.js';
import { Floor } from './floor.js';
import { benchCase, libraryPath } from './models.js';
import { median, print, ratios, show, type Bar } from './statistics.js';

const ROUNDS = 5;
const SECONDS = 3;

export async function http(): Promise<Bar[]> {
  const { path, inputs, dimensions } = benchCase('mlp');
  const request = binaryRequest(inputs);
  const floor = await Floor.start(libraryPath(), path, { dimensions });
  const servers = {
    plain: await Server.start('plain', path),
    nothing: await Server.start('nothing', 'y', '10'),
    tercel: await Server.start('tercel', path),
  };
  const results: Record<string, Record<number, LoadResult[]>> = {};
  const bareUs: number[] = [];
  for (let round = -1; round < ROUNDS; round++) {
    for (const connections of [1, 64]) {
      for (const [name, server] of Object.entries(servers)) {
        const result = load(server.url, request, connections, round < 0 ? 1 : SECONDS);
        if (result.errors) throw new Error(`${name}: ${result.errors} errors`);
        if (round >= 0) ((results[name] ??= {})[connections] ??= []).push(result);
      }
    }
    if (round >= 0) bareUs.push((await floor.measure(2000)) / 1000);
  }
  floor.stop();
  for (const server of Object.values(servers)) server.stop();

  const of = (name: string, connections: number, field: keyof LoadResult): number[] =>
    results[name]![connections]!.map((result) => result[field]);
  for (const name of Object.keys(servers)) {
    console.log(
      `${name.padEnd(8)} 1 connection: ${show(of(name, 1, 'perSecond'), 0)}/s, p50 ${show(of(name, 1, 'p50Us'), 0)} us; ` +
        `64: ${show(of(name, 64, 'perSecond'), 0)}/s, p50 ${show(of(name, 64, 'p50Us'), 0)}, p99 ${show(of(name, 64, 'p99Us'), 0)} us; ` +
        `load generator ${show(of(name, 64, 'cpu'))} of a processor`,
    );
  }
  console.log(`bare run ${show(bareUs)} us`);
  const bars: Bar[] = [];
  const add = (name: string, values: number[], bar: number, direction: Bar['direction']): void => {
    const result: Bar = {
      name,
      value: median(values),
      text: `${show(values)}x`,
      values,
      bar,
      direction,
    };
    bars.push(result);
    print(result);
  };
  const ours = of('tercel', 64, 'perSecond');
  add(
    'mlp, 64 connections, of the plain peer',
    ratios(ours, of('plain', 64, 'perSecond')),
    3,
    'at least',
  );
  add(
    'mlp, 64 connections, of Fastify without inference',
    ratios(ours, of('nothing', 64, 'perSecond')),
    0.9,
    'at least',
  );
  const least = of('nothing', 1, 'p50Us').map((us, i) => us + bareUs[i]!);
  add(
    'mlp, one at a time, p50 of Fastify + bare run',
    ratios(of('tercel', 1, 'p50Us'), least),
    1.1,
    'at most',
  );
  return bars;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await http();
