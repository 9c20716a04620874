// Which execution providers load here, and where one does not, what exactly is missing.
//
// Three things can be missing, from the inside out: the provider's own files, which ONNX Runtime opens from
// the folder of its library; what these files need of CUDA, cuDNN and TensorRT; the driver. Whether a
// provider loads is tried, in a process of its own, with a model of one node: a broken driver may end it.
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { InvalidInputError } from '../../errors.js';
import { availableProviders, libraryFile, stats } from '../../runtime/runtime.js';
import type { ProviderDevice } from '../../types/provider.js';
import { version } from '../../version.js';
import { gpus, type Machine } from '../machine.js';
import { installable, providerFiles } from '../install/provider-files.js';
import { LibrarySearch, readNeeds } from './shared-objects.js';

/** One thing that is missing, and how to get it. */
export interface MissingPiece {
  what: string;
  remedy: string;
  /** What brings it: `tercel install`, a package of pip's or the system's, or neither. */
  by: 'tercel' | 'package' | 'hand';
}

export interface ProviderReport {
  /** As in `providers`, in small letters: 'cpu', 'cuda'; of a plugin its library's path. */
  name: string;
  /** What a plugin offers here. */
  devices?: ProviderDevice[];
  loads: boolean;
  /** What ONNX Runtime said, or how the process that tried ended; undefined where it loads. */
  error?: string;
  missing: MissingPiece[];
}

export interface Diagnosis {
  tercel: string;
  node: string;
  platform: string;
  library: { path: string; version: string };
  gpus: Machine['gpus'];
  /** The version of the NVIDIA kernel driver; undefined where there is none. */
  driver?: string;
  providers: ProviderReport[];
}

/** y = x + x, ONNX IR 8, opset 16: float32[1]. */
const TINY_MODEL =
  'CAgSBnRlcmNlbDo3ChAKAXgKAXgSAXkiA0FkZDoAEgFnWg8KAXgSCgoICAESBAoCCAFiDwoBeRIKCggIARIECgIIAUIECgAQEQ==';
const TRY_MS = 120_000;

/** The CUDA that onnxruntime-node's install script and NuGet have; PyPI's wheel of 1.30 is of 13. */
const USUAL_CUDA = 12;

/** What a provider's files need, those that are opened by name only (cuDNN, cuFFT, the driver) too. */
function needsOf(name: string, cuda: number): string[] {
  return [
    `libcudart.so.${cuda}`,
    `libcublas.so.${cuda}`,
    `libcublasLt.so.${cuda}`,
    `libcufft.so.${cuda - 1}`,
    'libcurand.so.10',
    'libcudnn.so.9',
    ...(name === 'tensorrt' ? ['libnvinfer.so.10', 'libnvonnxparser.so.10'] : []),
    'libcuda.so.1',
  ];
}

/** The name in PyPI of a part of CUDA: from 13 on without the version in it. */
function pip(part: string, cuda: number, version = `${cuda}.*`): string {
  return cuda < 13 ? `nvidia-${part}-cu${cuda}` : `'nvidia-${part}==${version}'`;
}

interface Origin {
  product: string;
  packages: string;
}

/** What a library belongs to, and what brings it: by its version and that of CUDA. */
const origins: [RegExp, (version: string, cuda: number) => Origin][] = [
  [
    /^libcudart\.so\.(\d+)/,
    (v) => ({
      product: `the CUDA ${v} runtime`,
      packages: `${pip('cuda-runtime', Number(v))} (pip) or cuda-cudart-${v}-* (apt)`,
    }),
  ],
  [
    /^libcublas(?:Lt)?\.so\.(\d+)/,
    (v) => ({
      product: `cuBLAS of CUDA ${v}`,
      packages: `${pip('cublas', Number(v))} (pip) or libcublas-${v}-* (apt)`,
    }),
  ],
  [
    /^libcufft\.so\.(\d+)/,
    (v, cuda) => ({
      product: `cuFFT ${v}, of CUDA ${cuda}`,
      packages: `${pip('cufft', cuda, `${v}.*`)} (pip) or libcufft-${cuda}-* (apt)`,
    }),
  ],
  [
    /^libcurand\.so\.(\d+)/,
    (v, cuda) => ({
      product: `cuRAND ${v}, of CUDA ${cuda}`,
      packages: `${pip('curand', cuda, `${v}.*`)} (pip) or libcurand-${cuda}-* (apt)`,
    }),
  ],
  [
    /^libcudnn[a-z_]*\.so\.(\d+)/,
    (v, cuda) => ({
      product: `cuDNN ${v} for CUDA ${cuda}`,
      packages: `'nvidia-cudnn-cu${cuda}==${v}.*' (pip) or libcudnn${v}-cuda-${cuda} (apt)`,
    }),
  ],
  [
    /^libnvrtc[a-z-]*\.so\.(\d+)/,
    (v) => ({
      product: `NVRTC of CUDA ${v}`,
      packages: `${pip('cuda-nvrtc', Number(v))} (pip) or cuda-nvrtc-${v}-* (apt)`,
    }),
  ],
  [
    /^libnv(?:infer[a-z_]*|onnxparser)\.so\.(\d+)/,
    (v, cuda) => ({
      product: `TensorRT ${v} for CUDA ${cuda}`,
      packages: `'tensorrt-cu${cuda}-libs==${v}.*' (pip) or libnvinfer${v} and libnvonnxparsers${v} (apt)`,
    }),
  ],
];

function describe(library: string, cuda: number): MissingPiece {
  if (library === 'libcuda.so.1') {
    return {
      what: 'libcuda.so.1: the NVIDIA driver',
      remedy: `install the GPU's driver, ${cuda < 13 ? 525 : 580} or newer for CUDA ${cuda}; in a container, start it with --gpus all`,
      by: 'hand',
    };
  }
  for (const [pattern, origin] of origins) {
    const match = pattern.exec(library);
    if (!match) continue;
    const { product, packages } = origin(match[1]!, cuda);
    return { what: `${library}: ${product}`, remedy: `install ${packages}`, by: 'package' };
  }
  const remedy = `install the system's package that has ${library}`;
  return { what: library, remedy, by: 'package' };
}

/** One piece of those that come together: "libcublas.so.12, libcublasLt.so.12: cuBLAS of CUDA 12". */
function together(pieces: readonly MissingPiece[]): MissingPiece[] {
  const byRemedy = new Map<string, MissingPiece>();
  for (const piece of pieces) {
    const { what, remedy } = piece;
    const other = byRemedy.get(remedy);
    byRemedy.set(
      remedy,
      other ? { ...other, what: `${what.split(': ')[0]!}, ${other.what}` } : piece,
    );
  }
  return [...byRemedy.values()];
}

/** The driver's version, from the kernel; under WSL the kernel is another one's. */
function driverVersion(devices: Machine['gpus']): string | undefined {
  try {
    const text = readFileSync('/proc/driver/nvidia/version', 'utf8');
    return /Kernel Module\S*\s+(?:for \S+\s+)?(\d[\d.]*)/.exec(text)?.[1] ?? 'unknown';
  } catch {
    return devices[0]?.driver;
  }
}

function missingOf(
  name: string,
  search: LibrarySearch,
  driver: string | undefined,
): MissingPiece[] {
  // Other platforms' loaders are not looked into; what ONNX Runtime says is all there is.
  if (!installable.includes(name) || process.platform !== 'linux') return [];
  const { folder, files, present } = providerFiles(name);
  const missing: MissingPiece[] = [];
  const libraries = new Set<string>();
  let cuda = USUAL_CUDA;
  const folders: string[] = [];
  for (const file of files) {
    if (!present.includes(file)) {
      missing.push({
        what: `${file}, in ${folder}`,
        remedy: `tercel install ${name}, which brings the build for CUDA ${USUAL_CUDA}`,
        by: 'tercel',
      });
      continue;
    }
    const at = path.join(folder, file);
    try {
      for (const library of search.missing(at)) libraries.add(library);
      const needs = readNeeds(at);
      folders.push(...needs.folders);
      for (const library of needs.needed) {
        cuda = Number(/^libcudart\.so\.(\d+)$/.exec(library)?.[1] ?? cuda);
      }
    } catch (error) {
      missing.push({
        what: `a whole ${file}: ${(error as Error).message}`,
        remedy: `tercel install ${name} --force`,
        by: 'tercel',
      });
    }
  }
  for (const library of needsOf(name, cuda)) {
    if (!search.find(library, folders)) libraries.add(library);
  }
  missing.push(...together([...libraries].map((library) => describe(library, cuda))));
  if (!libraries.has('libcuda.so.1') && driver === undefined) {
    missing.push({
      what: 'a GPU: libcuda.so.1 is there, the kernel driver is not',
      remedy: 'see whether nvidia-smi lists a GPU; in a container, start it with --gpus all',
      by: 'hand',
    });
  }
  return missing;
}

const TRIAL = `
  const [index, name, model, isPlugin] = process.argv.slice(1);
  const { configure, loadModel, registerProvider } = await import(index);
  configure({ logLevel: 'error' }); // the log knows more than the error
  let devices;
  try {
    let provider = name;
    if (isPlugin) {
      devices = registerProvider(name);
      if (devices.length === 0) throw new Error('it offers no device here');
      provider = { name: devices[0].provider, library: name };
    }
    const loaded = await loadModel(Buffer.from(model, 'base64'), {
      providers: [provider],
      gpu: { engineCache: false },
    });
    const { y } = await loaded.run({ x: { dtype: 'float32', shape: [1], data: Float32Array.of(2) } });
    const error = y.data[0] === 4 ? undefined : '2 + 2 is ' + y.data[0];
    console.log(JSON.stringify({ error, devices }));
  } catch (error) {
    console.log(JSON.stringify({ error: error.message, devices }));
  }
`;

interface Trial {
  /** What went wrong. */
  error?: string;
  devices?: ProviderDevice[];
}

/** Loads and runs one node on a provider, or on the first device of a plugin's library. */
function tryProvider(name: string, isPlugin = false): Promise<Trial> {
  return new Promise((resolve) => {
    const index = new URL('../../index.js', import.meta.url).href;
    const child = spawn(
      process.execPath,
      ['--input-type=module', '-e', TRIAL, index, name, TINY_MODEL, isPlugin ? 'plugin' : ''],
      {
        stdio: ['ignore', 'pipe', 'pipe'],
        env: { ...process.env, TERCEL_ORT_LIBRARY: libraryFile() },
        timeout: TRY_MS,
      },
    );
    let printed = '';
    let logged = '';
    child.stdout.on('data', (chunk: Buffer) => (printed += chunk.toString()));
    child.stderr.on('data', (chunk: Buffer) => (logged += chunk.toString()));
    child.on('error', (error) => resolve({ error: error.message }));
    child.on('close', (code, signal) => {
      const line = printed.trim().split('\n').pop()!;
      if (!line.startsWith('{')) {
        const error =
          signal === 'SIGTERM'
            ? `it was not done after ${TRY_MS / 1000} s`
            : `the process that tried it ended with ${signal ?? `code ${code}`}`;
        resolve({ error });
        return;
      }
      const { error, ...trial } = JSON.parse(line) as Trial;
      const cause = [...logged.matchAll(/ : FAIL : (.+)/g)].pop()?.[1];
      const said = error?.replace(/^.*cannot be (?:loaded|registered): |; `tercel doctor`.*$/g, '');
      if (said === undefined) resolve(trial);
      else resolve({ ...trial, error: cause === undefined ? said : `${said}: ${cause}` });
    });
  });
}

/** What a plugin's library needs and is nowhere. */
function missingOfPlugin(file: string, search: LibrarySearch): MissingPiece[] {
  if (process.platform !== 'linux') return [];
  try {
    return together(search.missing(file).map((library) => describe(library, USUAL_CUDA)));
  } catch (error) {
    const what = `a whole ${file}: ${(error as Error).message}`;
    return [{ what, remedy: "install the provider's package again", by: 'hand' }];
  }
}

function isLibrary(name: string): boolean {
  return name.includes('/') || name.includes(path.sep) || /\.(so|dll|dylib)$/.test(name);
}

/** Names as users write them: 'cuda' of 'CUDAExecutionProvider'. */
function shortName(name: string): string {
  return name.toLowerCase().replace(/executionprovider$/, '');
}

/**
 * Tries execution providers.
 *
 * @param names those to try, as in `providers`, or libraries of plugin providers by their paths; all that the library knows, and cuda and tensorrt, where
 *   none are named
 * @param started called before each is tried, which may take seconds
 * @throws ModelError when there is no ONNX Runtime library; InvalidInputError for an empty name
 */
export async function diagnose(
  names: readonly string[] = [],
  started: (name: string) => void = () => undefined,
): Promise<Diagnosis> {
  const available = availableProviders().map(shortName);
  const file = libraryFile();
  const search = new LibrarySearch();
  const devices = gpus();
  const driver = driverVersion(devices);
  const wanted =
    names.length > 0
      ? names.map((name) => (isLibrary(name) ? path.resolve(name) : shortName(name)))
      : ['cpu', ...available, ...(process.platform === 'linux' ? installable : [])];
  const reports: ProviderReport[] = [];
  for (const name of new Set(wanted)) {
    if (name === '') throw new InvalidInputError('a provider needs a name');
    if (isLibrary(name)) {
      started(name);
      const { error, devices: offered } = await tryProvider(name, true);
      reports.push({
        name,
        loads: error === undefined,
        ...(offered && { devices: offered }),
        ...(error !== undefined && { error }),
        missing: error === undefined ? [] : missingOfPlugin(name, search),
      });
      continue;
    }
    if (!available.includes(name)) {
      reports.push({
        name,
        loads: false,
        error: `this ONNX Runtime library was built without it; it knows ${available.join(', ')}`,
        missing: [
          {
            what: `an ONNX Runtime library with ${name}`,
            remedy: 'name one with TERCEL_ORT_LIBRARY',
            by: 'hand',
          },
        ],
      });
      continue;
    }
    started(name);
    const { error } = await tryProvider(name);
    reports.push({
      name,
      loads: error === undefined,
      ...(error !== undefined && { error }),
      missing: error === undefined ? [] : missingOf(name, search, driver),
    });
  }
  return {
    tercel: version,
    node: process.versions.node,
    platform: `${process.platform} ${process.arch}`,
    library: { path: file, version: stats().library?.version ?? 'unknown' },
    gpus: devices,
    ...(driver !== undefined && { driver }),
    providers: reports,
  };
}
