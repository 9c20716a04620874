// What does an image cost that need not be sent? tsx bench/shared-memory.ts
//
// 602,112 bytes (1x3x224x224 floats) as a binary body, and in system shared memory, in turns; the model adds
// the pixels up. wrk is the client on the server's machine, so that what is compared is the way and not a
// client; what it costs the client to write the image to shared memory is measured beside it and counts. Of
// both, the run itself is taken off, as the bare C call takes. With 16 connections the cost is the time for
// each of many requests; one at a time it is p50, of which the wakes of two processes are the most.
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { Client } from 'tercel/client';
import { SharedRegion } from '../dist/client/shared-region.js';
import type { Tensor } from '../src/index.js';
import { encodeModel, FLOAT, int64s } from '../models/onnx.js';
import { Floor } from './floor.js';
import { binaryRequest, load, Server } from './load.js';
import { libraryPath } from './models.js';
import { median, percentile, print, ratios, show, type Bar } from './statistics.js';

const ROUNDS = 7;
const SECONDS = 2;
const CONNECTIONS = [1, 16];
const SHAPE = [1, 3, 224, 224];

function sum(): Uint8Array {
  return encodeModel({
    name: 'sum',
    inputs: { x: { tensor: FLOAT, shape: SHAPE } },
    outputs: { y: { tensor: FLOAT, shape: [1, 1, 1, 1] } },
    initializers: [int64s('axes', [3], [1, 2, 3])],
    nodes: [{ op: 'ReduceSum', inputs: ['x', 'axes'], outputs: ['y'] }],
  });
}

/** p50 of some calls, in microseconds. */
async function p50Of(count: number, call: () => unknown): Promise<number> {
  const us: number[] = [];
  for (let i = 0; i < count; i++) {
    const start = performance.now();
    await call();
    us.push((performance.now() - start) * 1000);
  }
  return percentile(us, 50);
}

export async function sharedMemory(): Promise<Bar[]> {
  const model = path.join(mkdtempSync(path.join(tmpdir(), 'tercel-shared-')), 'model.onnx');
  writeFileSync(model, sum());
  const data = Float32Array.from({ length: 3 * 224 * 224 }, (_, i) => (i % 255) / 255);
  const x: Tensor = { dtype: 'float32', shape: SHAPE, data };
  const image = new Uint8Array(data.buffer);

  const floor = await Floor.start(libraryPath(), model);
  const server = await Server.start('shared', model);
  const url = `http://127.0.0.1:${server.port}`;
  const region = new SharedRegion(1 << 20);
  const offset = region.put(image)!;
  const registered = await fetch(`${url}/v2/systemsharedmemory/region/image/register`, {
    method: 'POST',
    body: JSON.stringify({ key: `/${region.name}`, offset: 0, byte_size: region.bytes }),
  });
  if (!registered.ok) throw new Error(await registered.text());
  const body = binaryRequest({ x });
  const shared = {
    body: Buffer.from(
      JSON.stringify({
        inputs: [
          {
            name: 'x',
            shape: SHAPE,
            datatype: 'FP32',
            parameters: {
              shared_memory_region: 'image',
              shared_memory_offset: offset,
              shared_memory_byte_size: image.length,
            },
          },
        ],
      }),
    ),
  };
  const scratch = new SharedRegion(1 << 20);
  const us: Record<'body' | 'shared', number[][]> = { body: [[], []], shared: [[], []] };
  const writes: number[] = [];
  const runs: number[] = [];
  for (let round = -1; round < ROUNDS; round++) {
    const runUs = (await floor.measure(2000)) / 1000;
    const writeUs = await p50Of(500, () => scratch.release(scratch.put(image)!, image.length));
    for (const [k, connections] of CONNECTIONS.entries()) {
      for (const [name, request] of [
        ['body', body],
        ['shared', shared],
      ] as const) {
        const result = load(server.url, request, connections, round < 0 ? 1 : SECONDS);
        if (result.errors) throw new Error(`${name}: ${result.errors} errors`);
        if (round >= 0) us[name][k]!.push(k === 0 ? result.p50Us : 1e6 / result.perSecond);
      }
    }
    if (round < 0) continue;
    runs.push(runUs);
    writes.push(writeUs);
  }
  scratch.close();
  region.close();

  // The typed client, for what it is worth: its own cost is in both.
  const clients = [new Client(url), new Client(url, { sharedMemory: true })] as const;
  const typed: number[] = [];
  for (const client of clients) {
    await p50Of(100, () => client.infer('model', { x }));
    typed.push(await p50Of(500, () => client.infer('model', { x })));
    await client.close();
  }
  floor.stop();
  server.stop();
  console.log(
    `602,112 bytes, us: writing them ${show(writes, 0)}, the run ${show(runs, 0)}; ` +
      `by tercel/client ${typed[0]!.toFixed(0)} as a body and ${typed[1]!.toFixed(0)} by shared memory`,
  );
  const compared = CONNECTIONS.map((connections, k) => {
    const [theirs, ours] = [us.body[k]!, us.shared[k]!];
    console.log(
      `  ${connections} connections: as a body ${show(theirs, 0)}, by shared memory ${show(ours, 0)}`,
    );
    return ratios(
      ours.map((value, i) => value + writes[i]! - runs[i]!),
      theirs.map((value, i) => value - runs[i]!),
    );
  });
  console.log(`  one at a time, of the same as a body: ${show(compared[0]!)}x`);
  const bar: Bar = {
    name: 'an image by shared memory, of the same as a body',
    value: median(compared[1]!),
    text: `${show(compared[1]!)}x`,
    bar: 0.5,
    direction: 'at most',
  };
  print(bar);
  return [bar];
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await sharedMemory();
