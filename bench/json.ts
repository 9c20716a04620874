// What does JSON cost? tsx bench/json.ts
//
// A tensor of 150,528 floats between JSON text and memory, by Tercel and by JSON.parse and JSON.stringify,
// in turns; then mlp served in JSON against a plain Fastify + onnxruntime-node server.
import { fileURLToPath } from 'node:url';
import { carvedArray, parseCarved, parseNumbers } from '../dist/runtime/json-carve.js';
import { JsonPrinter, printJson } from '../dist/runtime/json-print.js'; // of the build: an environment has one addon
import type { Tensor } from '../src/index.js';
import { jsonRequest, load, Server } from './load.js';
import { benchCase } from './models.js';
import { median, print, ratios, show, type Bar } from './statistics.js';

const ELEMENTS = 3 * 224 * 224;
const ROUNDS = 15;
const SERVED_ROUNDS = 5;
const SECONDS = 3;

function timed(work: () => unknown): number {
  const start = performance.now();
  work();
  return performance.now() - start;
}

export function codec(): Bar[] {
  const values = Float32Array.from({ length: ELEMENTS }, () => Math.random());
  const data = Array.from(values);
  const text = Buffer.from(
    JSON.stringify({ inputs: [{ name: 'x', shape: [ELEMENTS], datatype: 'FP32', data }] }),
  );
  const tensor: Tensor = { dtype: 'float32', shape: [ELEMENTS], data: values };
  const ours = (): Float32Array => {
    const json = parseCarved(text);
    const { inputs } = json.value as { inputs: { data: unknown }[] };
    const span = carvedArray(json, inputs[0]!.data)!;
    return parseNumbers(span, 'float32', ELEMENTS, false, 'FP32', 'x');
  };
  const theirs = (): Float32Array => {
    const json = JSON.parse(text.toString('utf8')) as { inputs: { data: number[] }[] };
    return Float32Array.from(json.inputs[0]!.data);
  };
  const ourPrint = (): Buffer => {
    const printer = new JsonPrinter();
    const template = printer.template({ outputs: [{ name: 'y', data: printer.place('y') }] });
    return printJson(template, [tensor], false);
  };
  const theirPrint = (): string =>
    JSON.stringify({ outputs: [{ name: 'y', data: Array.from(values) }] });
  if (!Buffer.from(ours().buffer, 0, ELEMENTS * 4).equals(Buffer.from(theirs().buffer))) {
    throw new Error('what was parsed differs');
  }
  const times = { ours: [], theirs: [], ourPrint: [], theirPrint: [] } as Record<string, number[]>;
  for (let round = -2; round < ROUNDS; round++) {
    for (const [name, work] of Object.entries({ ours, theirs, ourPrint, theirPrint })) {
      const ms = timed(work);
      if (round >= 0) times[name]!.push(ms);
    }
  }
  console.log(
    `150,528 floats, ms: parsing ${show(times['ours']!)}, JSON.parse ${show(times['theirs']!)}; ` +
      `printing ${show(times['ourPrint']!)}, JSON.stringify ${show(times['theirPrint']!)}`,
  );
  return [
    bar('JSON: parsing, of JSON.parse', ratios(times['theirs']!, times['ours']!), 5),
    bar('JSON: printing, of JSON.stringify', ratios(times['theirPrint']!, times['ourPrint']!), 4),
  ];
}

function bar(name: string, values: number[], limit: number): Bar {
  const made: Bar = {
    name,
    value: median(values),
    text: `${show(values)}x`,
    values,
    bar: limit,
    direction: 'at least',
  };
  print(made);
  return made;
}

async function served(): Promise<Bar> {
  const { path } = benchCase('mlp');
  // As many digits as pixels have that were scaled by a program, not by hand.
  const data = Float32Array.from({ length: 784 }, () => Math.random());
  const request = jsonRequest({ x: { dtype: 'float32', shape: [1, 784], data } });
  const plain = await Server.start('plain', path);
  const tercel = await Server.start('tercel', path);
  const rates: Record<string, number[]> = { plain: [], tercel: [] };
  for (let round = -1; round < SERVED_ROUNDS; round++) {
    for (const [name, server] of Object.entries({ plain, tercel })) {
      const result = load(server.url, request, 64, round < 0 ? 1 : SECONDS);
      if (result.errors) throw new Error(`${name}: ${result.errors} errors`);
      if (round >= 0) rates[name]!.push(result.perSecond);
    }
  }
  plain.stop();
  tercel.stop();
  console.log(
    `mlp in JSON, 64 connections: plain ${show(rates['plain']!, 0)}/s, tercel ${show(rates['tercel']!, 0)}/s`,
  );
  return bar('mlp in JSON, of the plain peer', ratios(rates['tercel']!, rates['plain']!), 4);
}

export async function json(): Promise<Bar[]> {
  return [...codec(), await served()];
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await json();
