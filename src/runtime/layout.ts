// The memory that calls into the addon share with it: the JS side of the layout in native/addon/values.h.
import { native } from '../native.js';
import { dtypeCodes, dtypeFromCode, viewBits, type DType } from '../tensor.js';

const SCRATCH = 8;
const SCRATCH_OUTPUTS = 16;
const SCRATCH_BYTES = 64;
export const BODY = SCRATCH + (SCRATCH_OUTPUTS * SCRATCH_BYTES) / 8;
export const META_INPUTS = 0;
export const META_OUTPUTS = 1;
export const META_FLAGS = 2;
export const META_PRIORITY = 3;
export const META_TIMEOUT_MS = 4;
export const META_SLOT = 5;
export const META_RUN_US = 6;

export const FLAG_PACKED = 1;
export const FLAG_MAY_RUN_INLINE = 2;
export const FLAG_CONCURRENT = 4;
export const FLAG_SHARE_RESULTS = 8;
/** Numbers of any dtype as Uint8Array, at any address. */
export const FLAG_RAW_BYTES = 16;
export const FLAG_HOLD = 32;
export const JSON_TEXT = 256;
export const SEQUENCE = -1;
export const NESTED = -1;
const FLOAT32_CODE = dtypeCodes.float32;
/** As many data arguments as the addon reads from a call; more travel in one array. */
export const MAX_ARGS = 34;
export const MAX_RANK = 32;

export let meta = new Float64Array(0);
/** Views of the scratch by output position and dtype code. */
let scratch: (Float32Array | undefined)[] = [];

/** A copy of what a run left in the scratch: up to 64 bytes, which V8 keeps in its own heap. */
export function fromScratch(position: number, code: number, count: number): unknown {
  const key = position * 32 + code;
  const view = (scratch[key] ??= viewBits(
    dtypeFromCode(code) as Exclude<DType, 'string'>,
    meta.buffer,
    SCRATCH * 8 + position * SCRATCH_BYTES,
    SCRATCH_BYTES,
  ));
  // slice() looks for a species first; for a few floats a loop takes half the time.
  if (code !== FLOAT32_CODE) return view.slice(0, count);
  const copy = new Float32Array(count);
  for (let i = 0; i < count; i++) copy[i] = view[i]!;
  return copy;
}

/** Makes room for the shapes of `values` inputs and outputs. */
export function ensureMeta(values: number): void {
  const size = BODY + values * (6 + MAX_RANK);
  if (size <= meta.length) return;
  meta = new Float64Array(size);
  scratch = [];
  native.setMeta(meta);
}
ensureMeta(32);
