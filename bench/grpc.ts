// What does a request cost over gRPC? tsx bench/grpc.ts
//
// mlp with raw contents on loopback: an @grpc/grpc-js service that answers the same bytes without inference,
// and Tercel, in turns. h2load (nghttp2-client) with one thread is the load generator, on the same
// processors.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import grpc from '@grpc/grpc-js';
import { ProtoWriter } from '../dist/protobuf.js';
import { Server } from './load.js';
import { benchCase } from './models.js';
import { median, print, ratios, show, type Bar } from './statistics.js';

const ROUNDS = 7;
const SECONDS = 3;
const METHOD = '/inference.GRPCInferenceService/ModelInfer';

/** A ModelInferRequest with raw contents. */
function request(data: Float32Array): Buffer {
  const input = new ProtoWriter().string(1, 'x').string(2, 'FP32').packed(3, [1, data.length]);
  const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  return new ProtoWriter().string(1, 'model').message(5, input).bytes(7, bytes).finish();
}

/** The same as gRPC frames it. */
export function framedRequest(data: Float32Array): Buffer {
  const message = request(data);
  const framed = Buffer.alloc(5 + message.length);
  framed.writeUInt32BE(message.length, 1);
  message.copy(framed, 5);
  return framed;
}

function call(port: number, message: Buffer): Promise<Buffer> {
  const client = new grpc.Client(`127.0.0.1:${port}`, grpc.credentials.createInsecure());
  const same = (bytes: Buffer): Buffer => bytes;
  return new Promise((resolve, reject) => {
    client.makeUnaryRequest(METHOD, same, same, message, (error, answer) => {
      client.close();
      if (error) reject(error);
      else resolve(answer!);
    });
  });
}

interface Result {
  perSecond: number;
  cpu: number;
}

/** Closed loop: `connections`, each with `streams` calls in flight. */
export function loadGrpc(
  port: number,
  body: string,
  connections: number,
  seconds: number,
  streams = 8,
): Result {
  const { stdout, stderr, error } = spawnSync(
    'bash',
    [
      '-c',
      `TIMEFORMAT='CPU %U %S'; time h2load -t1 -c${connections} -m${streams} -D${seconds} -d ${body} ` +
        `-H 'content-type: application/grpc' -H 'te: trailers' http://127.0.0.1:${port}${METHOD}`,
    ],
    { encoding: 'utf8' },
  );
  const rate = /finished in [\d.]+\w+, ([\d.]+) req\/s/.exec(stdout);
  const wrong = /(\d+) failed, (\d+) errored/.exec(stdout);
  const used = /CPU ([\d.]+) ([\d.]+)/.exec(stderr);
  if (error || !rate || !wrong || !used) {
    throw new Error(`h2load is needed (nghttp2-client): ${stderr || String(error)}`);
  }
  if (Number(wrong[1]) + Number(wrong[2]) > 0) throw new Error(`failed requests: ${wrong[0]}`);
  return { perSecond: Number(rate[1]), cpu: (Number(used[1]) + Number(used[2])) / seconds };
}

export async function overGrpc(): Promise<Bar[]> {
  const { path: model, inputs } = benchCase('mlp');
  const [{ data }] = Object.values(inputs) as unknown as [{ data: Float32Array }];
  const scratch = mkdtempSync(path.join(tmpdir(), 'tercel-grpc-'));
  const message = request(data);
  const body = path.join(scratch, 'request');
  writeFileSync(body, framedRequest(data));
  const tercel = await Server.start('grpc', model);
  const answer = path.join(scratch, 'answer');
  writeFileSync(answer, await call(tercel.port, message));
  const nothing = await Server.start('grpc-nothing', answer);
  if (!(await call(nothing.port, message)).equals(await call(tercel.port, message))) {
    throw new Error('the two answer different bytes');
  }
  const results: Record<string, Result[]> = { nothing: [], tercel: [] };
  for (let round = -1; round < ROUNDS; round++) {
    for (const [name, server] of Object.entries({ nothing, tercel })) {
      const result = loadGrpc(server.port, body, 8, round < 0 ? 1 : SECONDS);
      if (round >= 0) results[name]!.push(result);
    }
  }
  // What was counted were answers, not errors in trailers.
  await call(tercel.port, message);
  tercel.stop();
  nothing.stop();
  const of = (name: string, field: keyof Result): number[] =>
    results[name]!.map((result) => result[field]);
  console.log(
    `mlp over gRPC, 64 in flight: without inference ${show(of('nothing', 'perSecond'), 0)}/s, ` +
      `tercel ${show(of('tercel', 'perSecond'), 0)}/s; load generator ${show(of('tercel', 'cpu'))} of a processor`,
  );
  const values = ratios(of('tercel', 'perSecond'), of('nothing', 'perSecond'));
  const bar: Bar = {
    name: 'mlp over gRPC, of grpc-js without inference',
    value: median(values),
    text: `${show(values)}x`,
    values,
    bar: 0.9,
    direction: 'at least',
  };
  print(bar);
  return [bar];
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await overGrpc();
