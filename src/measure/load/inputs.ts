// Inputs for a model: made up, or read from files.
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { InvalidInputError } from '../../errors.js';
import { bytesPerElement, countElements, viewOf, type DType, type Tensor } from '../../tensor.js';
import { dtypeOfName } from '../../protocol/v2/datatypes.js';
import { randomOf } from './load.js';
import { readNpy, readNpz } from './npy.js';

/** An input as a model declares it. */
export interface InputSpec {
  readonly name: string;
  readonly dtype: DType;
  /** A number below 0, or a name, where it is dynamic. */
  readonly shape: readonly (number | string)[];
}

export interface InputChoices {
  /** Rows: the first dimension, where it is dynamic. */
  readonly batch: number;
  /** Sizes of the other dynamic dimensions by name; 1 otherwise. */
  readonly dimensions?: Readonly<Record<string, number>> | undefined;
  /** Whole shapes by input; with or without the rows. */
  readonly shapes?: Readonly<Record<string, readonly number[]>> | undefined;
  /** What to take instead of random numbers, by input. */
  readonly files?: Readonly<Record<string, string>> | undefined;
  readonly seed: number;
}

/** The shape of an input for so many rows. */
function shapeFor(
  spec: InputSpec,
  { batch, dimensions = {}, shapes = {} }: InputChoices,
): number[] {
  const given = shapes[spec.name];
  if (given) {
    if (given.length === spec.shape.length - 1) return [batch, ...given];
    if (given.length === spec.shape.length) return [...given];
    throw new InvalidInputError(
      `input "${spec.name}": expected ${spec.shape.length} dimensions, [${spec.shape.join(',')}], got [${given.join(',')}]`,
    );
  }
  return spec.shape.map((dim, axis) => {
    if (typeof dim === 'number' && dim >= 0) return dim;
    const known = typeof dim === 'string' ? dimensions[dim] : undefined;
    return known ?? (axis === 0 ? batch : 1);
  });
}

/** Numbers of 0 to 1; whole ones are 0 or 1, which ids and masks can be as well. */
function randomTensor(dtype: DType, shape: number[], random: () => number): Tensor {
  const count = countElements(shape);
  if (dtype === 'string') {
    return { dtype, shape, data: Array.from({ length: count }, () => String(random())) };
  }
  const buffer = new ArrayBuffer(count * bytesPerElement(dtype));
  const tensor = { dtype, shape, data: viewOf(dtype, buffer) } as Tensor;
  if (dtype === 'float32' || dtype === 'float64') {
    const numbers = tensor.data as Float32Array;
    for (let i = 0; i < count; i++) numbers[i] = random();
  } else if (dtype === 'float16' || dtype === 'bfloat16') {
    const bits = new Uint16Array(buffer);
    // Between a half and one, whatever the low bits are.
    const [half, mask] = dtype === 'float16' ? [0x3800, 0x3ff] : [0x3f00, 0x7f];
    for (let i = 0; i < count; i++) bits[i] = half + Math.floor(random() * (mask + 1));
  } else if (dtype === 'int64' || dtype === 'uint64') {
    const numbers = tensor.data as BigInt64Array;
    for (let i = 0; i < count; i++) numbers[i] = random() < 0.5 ? 0n : 1n;
  } else {
    const numbers = tensor.data as Int32Array;
    for (let i = 0; i < count; i++) numbers[i] = random() < 0.5 ? 0 : 1;
  }
  return tensor;
}

/** As many rows as there shall be, from those that there are. */
function withRows(tensor: Tensor, shape: readonly number[], where: string): Tensor {
  const wanted = countElements(shape);
  const have = countElements(tensor.shape);
  const rowElements = shape.length > 0 && shape[0]! > 0 ? wanted / shape[0]! : wanted;
  if (have === 0 || have % rowElements !== 0 || tensor.dtype === 'string') {
    if (have === wanted) return { ...tensor, shape: [...shape] };
    throw new InvalidInputError(
      `${where}: [${tensor.shape.join(',')}] does not fit [${shape.join(',')}]`,
    );
  }
  const source = tensor.data as Float32Array;
  const made = viewOf(
    tensor.dtype,
    new ArrayBuffer(wanted * bytesPerElement(tensor.dtype)),
  ) as unknown as Float32Array;
  for (let at = 0; at < wanted; at += source.length) {
    made.set(source.subarray(0, Math.min(source.length, wanted - at)), at);
  }
  return { dtype: tensor.dtype, shape: [...shape], data: made };
}

/** Nested lists of numbers or strings, flat, and their shape. */
function flatten(value: unknown, where: string): { shape: number[]; flat: unknown[] } {
  const shape: number[] = [];
  for (let at = value; Array.isArray(at); at = (at as unknown[])[0]) shape.push(at.length);
  const flat = Array.isArray(value) ? (value.flat(shape.length) as unknown[]) : [value];
  if (flat.length !== countElements(shape)) {
    throw new InvalidInputError(`${where}: the lists have different lengths`);
  }
  return { shape, flat };
}

function tensorOf(dtype: DType, shape: number[], flat: unknown[], where: string): Tensor {
  if (dtype === 'string') return { dtype, shape, data: flat.map(String) };
  if (dtype === 'float16' || dtype === 'bfloat16') {
    throw new InvalidInputError(`${where}: ${dtype} cannot be read from JSON; use a .npy file`);
  }
  const numbers = viewOf(dtype, new ArrayBuffer(flat.length * bytesPerElement(dtype)));
  const isBig = dtype === 'int64' || dtype === 'uint64';
  flat.forEach((value, i) => {
    const number = Number(value);
    if (Number.isNaN(number) || (isBig && !Number.isSafeInteger(number))) {
      throw new InvalidInputError(
        `${where}: element ${i}, ${JSON.stringify(value)}, is no ${dtype}`,
      );
    }
    (numbers as unknown as (number | bigint)[])[i] = isBig ? BigInt(number) : number;
  });
  return { dtype, shape, data: numbers };
}

/** An infer request of the Open Inference Protocol, an object of inputs, or the data of the only one. */
function fromJson(text: string, specs: readonly InputSpec[], file: string): Record<string, Tensor> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new InvalidInputError(`${file} is no JSON: ${(cause as Error).message}`, { cause });
  }
  const listed = (value as { inputs?: unknown } | null)?.inputs;
  const found: Record<string, Tensor> = {};
  if (Array.isArray(listed)) {
    for (const { name, datatype, shape, data } of listed as {
      name: string;
      datatype?: string;
      shape?: number[];
      data: unknown;
    }[]) {
      const where = `${file}: input "${name}"`;
      const dtype = datatype ? dtypeOfName(datatype, where) : dtypeFor(name, specs, where);
      const flattened = flatten(data, where);
      found[name] = tensorOf(dtype, shape ?? flattened.shape, flattened.flat, where);
    }
    return found;
  }
  const byName: Record<string, unknown> = Array.isArray(value)
    ? { [specs[0]!.name]: value }
    : ((value ?? {}) as Record<string, unknown>);
  for (const [name, data] of Object.entries(byName)) {
    const where = `${file}: input "${name}"`;
    const { shape, flat } = flatten(data, where);
    found[name] = tensorOf(dtypeFor(name, specs, where), shape, flat, where);
  }
  return found;
}

function dtypeFor(name: string, specs: readonly InputSpec[], where: string): DType {
  const spec = specs.find((candidate) => candidate.name === name);
  if (!spec) {
    throw new InvalidInputError(
      `${where}: the model has no such input, but ${specs.map((s) => `"${s.name}"`).join(', ')}`,
    );
  }
  return spec.dtype;
}

/** An image as the input wants it: [n,3,h,w] or [n,h,w,3], floats of 0 to 1 or bytes. */
async function fromImage(file: string, spec: InputSpec, shape: readonly number[]): Promise<Tensor> {
  let sharp: (typeof import('sharp'))['default'];
  try {
    ({ default: sharp } = await import('sharp'));
  } catch (cause) {
    throw new InvalidInputError(`${file}: images need the package sharp (npm install sharp)`, {
      cause,
    });
  }
  const dims = shape.slice(-3);
  const isPlanar = dims[0] === 3 || dims[0] === 1;
  const [height, width, channels] = isPlanar
    ? [dims[1]!, dims[2]!, dims[0]!]
    : [dims[0]!, dims[1]!, dims[2]!];
  if (dims.length < 3 || (channels !== 1 && channels !== 3)) {
    throw new InvalidInputError(
      `${file}: input "${spec.name}" of [${shape.join(',')}] is no image: one has 1 or 3 channels`,
    );
  }
  if (spec.dtype !== 'float32' && spec.dtype !== 'uint8') {
    throw new InvalidInputError(
      `${file}: an image can be float32 or uint8, input "${spec.name}" is ${spec.dtype}`,
    );
  }
  let pixels: Buffer;
  try {
    pixels = await sharp(file)
      .resize(width, height, { fit: 'fill' })
      .removeAlpha()
      .toColourspace(channels === 1 ? 'b-w' : 'srgb')
      .raw()
      .toBuffer();
  } catch (cause) {
    throw new InvalidInputError(`${file}: ${(cause as Error).message}`, { cause });
  }
  const count = height * width * channels;
  const planes = new Uint8Array(count);
  for (let i = 0; i < height * width; i++) {
    for (let c = 0; c < channels; c++) {
      planes[isPlanar ? c * height * width + i : i * channels + c] = pixels[i * channels + c]!;
    }
  }
  const data = spec.dtype === 'uint8' ? planes : Float32Array.from(planes, (value) => value / 255);
  return { dtype: spec.dtype, shape: [1, ...dims], data };
}

function read(file: string): Uint8Array {
  try {
    return readFileSync(file);
  } catch (cause) {
    throw new InvalidInputError(`cannot read ${file}: ${(cause as Error).message}`, { cause });
  }
}

/**
 * Inputs for one request. Files are .npy (one input), .npz and .json (inputs by name), or images; what a
 * file has too few rows of is repeated.
 *
 * @param files by input name; '' for a file that names its inputs itself, or for the only input
 * @throws InvalidInputError naming the input or the file
 */
export async function makeInputs(
  specs: readonly InputSpec[],
  choices: InputChoices,
): Promise<Record<string, Tensor>> {
  const random = randomOf(choices.seed);
  const { files = {} } = choices;
  for (const name of [...Object.keys(files), ...Object.keys(choices.shapes ?? {})]) {
    if (name !== '') dtypeFor(name, specs, 'inputs');
  }
  const symbols = new Set(
    specs.flatMap(({ shape }) => shape.filter((dim) => typeof dim === 'string' && dim !== '')),
  );
  for (const name of Object.keys(choices.dimensions ?? {})) {
    if (symbols.has(name)) continue;
    throw new InvalidInputError(
      `the model has no dimension "${name}"` +
        (symbols.size > 0
          ? `; it has ${[...symbols].map((symbol) => `"${symbol}"`).join(', ')}`
          : '; give whole shapes'),
    );
  }
  const found: Record<string, Tensor> = {};
  for (const [given, file] of Object.entries(files)) {
    const name = given === '' && specs.length === 1 ? specs[0]!.name : given;
    const spec = specs.find((candidate) => candidate.name === name);
    const extension = path.extname(file).toLowerCase();
    if (extension === '.npz') Object.assign(found, readNpz(read(file), file));
    else if (extension === '.json') {
      Object.assign(found, fromJson(Buffer.from(read(file)).toString('utf8'), specs, file));
    } else if (!spec) {
      throw new InvalidInputError(
        `${file}: say of which input it is, as in ${specs[0]?.name ?? 'x'}=${file}`,
      );
    } else if (extension === '.npy') found[name] = readNpy(read(file), file);
    else {
      read(file);
      found[name] = await fromImage(file, spec, shapeFor(spec, choices));
    }
  }
  for (const name of Object.keys(found)) dtypeFor(name, specs, 'inputs');
  const inputs: Record<string, Tensor> = {};
  for (const spec of specs) {
    const shape = shapeFor(spec, choices);
    const own = found[spec.name];
    if (!own) {
      inputs[spec.name] = randomTensor(spec.dtype, shape, random);
      continue;
    }
    if (own.dtype !== spec.dtype) {
      throw new InvalidInputError(
        `input "${spec.name}": expected ${spec.dtype}, the file has ${own.dtype}`,
      );
    }
    // A file's own shape stands for dimensions that nothing else says.
    const isFree = !choices.shapes?.[spec.name] && own.shape.length === shape.length;
    const whole = isFree
      ? shape.map((dim, axis) =>
          axis > 0 && typeof spec.shape[axis] === 'string' ? own.shape[axis]! : dim,
        )
      : shape;
    inputs[spec.name] = withRows(own, whole, `input "${spec.name}"`);
  }
  return inputs;
}

/**
 * The inferences of one request: its rows, which have to be as many as were asked for.
 *
 * @throws InvalidInputError where the model's first dimension is fixed, or a shape says otherwise
 */
export function rowsOf(
  specs: readonly InputSpec[],
  inputs: Readonly<Record<string, Tensor>>,
  batch: number,
): number {
  const dynamic = specs.filter(({ shape: [first] }) => typeof first === 'string' || first! < 0);
  if (dynamic.length === 0) {
    if (batch === 1) return 1;
    throw new InvalidInputError(
      `batch ${batch}: no input of the model has a first dimension that can be chosen`,
    );
  }
  for (const { name } of dynamic) {
    const rows = inputs[name]!.shape[0];
    if (rows !== batch) {
      throw new InvalidInputError(`input "${name}" has ${rows} rows, where the batch is ${batch}`);
    }
  }
  return batch;
}
