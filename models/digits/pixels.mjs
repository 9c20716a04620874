#!/usr/bin/env node
// A digit's PNG as the tensor that the model takes: 64 float32 in 0..1, little-endian, to stdout.
//   node models/digits/pixels.mjs models/digits/samples/7.png
import { readFileSync } from 'node:fs';
import { PNG } from 'pngjs';

const file = process.argv[2];
if (!file) {
  console.error('usage: pixels.mjs FILE.png');
  process.exit(2);
}
const { width, height, data } = PNG.sync.read(readFileSync(file));
if (width !== 8 || height !== 8) {
  console.error(`${file}: expected 8x8 pixels, got ${width}x${height}`);
  process.exit(1);
}
// RGBA; the image is grey, so red says it all.
const pixels = Float32Array.from({ length: 64 }, (_, i) => data[4 * i] / 255);
process.stdout.write(new Uint8Array(pixels.buffer));
