// tercel doctor and tercel install, on a machine without a GPU.
import { spawnSync } from 'node:child_process';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { zipSync } from 'fflate';
import { allocate, stats } from 'tercel';
import type { Diagnosis } from 'tercel/measure';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { LibrarySearch, readNeeds } from '../../src/platform/doctor/shared-objects.js';

const root = fileURLToPath(new URL('../..', import.meta.url));
const program = path.join(root, 'dist/cli/main.js');
const built = path.join(root, 'build/tests');
const CUDA_FILES = ['libonnxruntime_providers_shared.so', 'libonnxruntime_providers_cuda.so'];

let scratch: string;
/** A folder with the library, and nothing beside it. */
let folder: string;
let library: string;

beforeAll(() => {
  allocate('float32', [1]); // starts the runtime, so that its library is known
  scratch = mkdtempSync(path.join(tmpdir(), 'tercel-doctor-'));
});
afterAll(() => rmSync(scratch, { recursive: true }));
beforeEach(() => {
  folder = mkdtempSync(path.join(scratch, 'library-'));
  library = path.join(folder, 'libonnxruntime.so.1');
  symlinkSync(stats().library!.path, library);
});

function tercel(
  args: string[],
  env: Record<string, string> = {},
): { stdout: string; stderr: string; status: number | null } {
  return spawnSync(process.execPath, [program, ...args], {
    encoding: 'utf8',
    env: { ...process.env, TERCEL_ORT_LIBRARY: library, ...env },
  });
}

function doctor(
  names: string[],
  env?: Record<string, string>,
): Diagnosis['providers'][number] & { status: number | null } {
  const { stdout, status } = tercel(['doctor', '--json', ...names], env);
  return { ...(JSON.parse(stdout) as Diagnosis).providers.at(-1)!, status };
}

const isLinux = process.platform === 'linux' && process.arch === 'x64';
const hasDriver = isLinux && new LibrarySearch().find('libcuda.so.1') !== undefined;

describe.skipIf(!isLinux || hasDriver)('tercel doctor, without a GPU', () => {
  it('says of each provider whether it loads, and what is missing, with a remedy', () => {
    const { stdout, stderr, status } = tercel(['doctor']);
    expect(stderr).toBe('');
    expect(status).toBe(0); // the CPU is there, and nothing else was asked for
    expect(stdout).toContain(`ONNX Runtime ${stats().library!.version}: ${library}`);
    expect(stdout).toMatch(/^GPUs: no NVIDIA driver$/m);
    expect(stdout).toMatch(/^cpu +loads$/m);
    expect(stdout).toMatch(/^cuda +does not load$/m);
    expect(stdout).toMatch(/^tensorrt +does not load$/m);
    for (const file of [...CUDA_FILES, 'libonnxruntime_providers_tensorrt.so']) {
      expect(stdout).toContain(`missing  ${file}, in ${folder}\n           tercel install`);
    }
    for (const [name, product] of [
      ['libcudart.so.12', 'the CUDA 12 runtime'],
      ['libcublasLt.so.12, libcublas.so.12', 'cuBLAS of CUDA 12'],
      ['libcufft.so.11', 'cuFFT 11, of CUDA 12'],
      ['libcudnn.so.9', 'cuDNN 9 for CUDA 12'],
      ['libnvonnxparser.so.10, libnvinfer.so.10', 'TensorRT 10 for CUDA 12'],
      ['libcuda.so.1', 'the NVIDIA driver'],
    ]) {
      expect(stdout).toContain(`missing  ${name}: ${product}\n`);
    }
  });

  it('registers a plugin and says what it offers', () => {
    const plugin = path.join(built, 'libfake_plugin.so');
    const found = doctor([plugin]);
    expect(found).toMatchObject({ name: plugin, loads: true, missing: [] });
    expect(found.devices).toMatchObject([
      { provider: 'FakeExecutionProvider', type: 'cpu' },
      { provider: 'TensorrtExecutionProvider' },
    ]);
    const { status, stdout } = tercel(['doctor', plugin]);
    expect(status).toBe(0);
    expect(stdout).toMatch(/loads\n {2}offers {3}cpu of .+: FakeExecutionProvider 1\.2\.3\n/);
    const other = doctor([path.join(built, 'libfake_provider.so')]);
    expect(other.loads).toBe(false);
    expect(other.missing.map(({ what }) => what)).toEqual(['libcudart.so.12: the CUDA 12 runtime']);
  });

  it('exits with 1 where a provider that was named does not load', () => {
    expect(tercel(['doctor', 'cpu']).status).toBe(0);
    expect(tercel(['doctor', 'cpu', 'CUDAExecutionProvider']).status).toBe(1);
    const strange = doctor(['quantum']);
    expect(strange.status).toBe(1);
    expect(strange.error).toMatch(/built without it; it knows cpu|built without it; it knows/);
    expect(tercel(['doctor', '--nope']).status).toBe(2);
  });

  it('asks the files that are there for what they need', () => {
    for (const file of CUDA_FILES) {
      copyFileSync(path.join(built, 'libfake_provider.so'), path.join(folder, file));
    }
    const without = doctor(['cuda']);
    expect(without.loads).toBe(false);
    const pieces = ({ missing }: typeof without): string[] => missing.map(({ what }) => what);
    expect(pieces(without)[0]).toBe('libcudart.so.12: the CUDA 12 runtime');
    expect(pieces(without)).toContain('libcudnn.so.9: cuDNN 9 for CUDA 12'); // opened by name
    expect(pieces(without)).toContain('libcuda.so.1: the NVIDIA driver');
    expect(pieces(without).some((what) => what.includes(folder))).toBe(false);
    const found = doctor(['cuda'], { LD_LIBRARY_PATH: path.join(built, 'fake-cuda') });
    expect(pieces(found)).toEqual(pieces(without).slice(1));
    // The files are those of a test: what ONNX Runtime says of them is passed on.
    expect(without.error).toMatch(/libcudart\.so\.12: cannot open shared object file/);
    expect(found.error).toMatch(
      /Failed to get symbol Provider_SetHost with error: .*undefined symbol: Provider_SetHost/,
    );
  });

  it('tells a file that is cut short', () => {
    for (const file of CUDA_FILES) {
      copyFileSync(path.join(built, 'libfake_provider.so'), path.join(folder, file));
    }
    truncateSync(path.join(folder, CUDA_FILES[1]!), 100);
    const { missing } = doctor(['cuda']);
    expect(missing[0]!.what).toMatch(
      /^a whole libonnxruntime_providers_cuda\.so: .* is cut short$/,
    );
    expect(missing[0]!.remedy).toBe('tercel install cuda --force');
  });

  it('says in one sentence that there is no library', () => {
    const { stderr, status } = tercel(['doctor'], {
      TERCEL_ORT_LIBRARY: '/nope/libonnxruntime.so',
    });
    expect(status).toBe(2);
    expect(stderr).toMatch(/^tercel doctor: cannot use ONNX Runtime library "\/nope/);
    expect(stderr.trim().split('\n')).toHaveLength(1);
  });
});

describe.skipIf(!isLinux || hasDriver)('tercel install, without a GPU', () => {
  const archive = (names: string[]): string => {
    const file = path.join(scratch, `${names.length}.whl`);
    writeFileSync(
      file,
      zipSync(
        Object.fromEntries(
          names.map((name) => [`onnxruntime/capi/${name}`, new TextEncoder().encode(name)]),
        ),
      ),
    );
    return file;
  };

  it('takes the files from a package, and says what else is needed', () => {
    const { stdout, status } = tercel([
      'install',
      'cuda',
      '--from',
      archive([...CUDA_FILES, 'libonnxruntime_providers_tensorrt.so']),
    ]);
    expect(status).toBe(1); // it does not load yet
    expect(readdirSync(folder).sort()).toEqual([...CUDA_FILES, 'libonnxruntime.so.1'].sort());
    for (const file of CUDA_FILES) {
      expect(readFileSync(path.join(folder, file), 'utf8')).toBe(file);
      expect(stdout).toContain(`wrote ${path.join(folder, file)}`);
    }
    expect(stdout).toContain('cuda does not load yet; besides, it needs:');
    expect(stdout).toContain('libcuda.so.1: the NVIDIA driver');
  });

  it('takes them from a folder, at any depth', () => {
    const from = mkdtempSync(path.join(scratch, 'from-'));
    mkdirSync(path.join(from, 'a/b'), { recursive: true });
    writeFileSync(path.join(from, CUDA_FILES[0]!), '0');
    writeFileSync(path.join(from, 'a/b', CUDA_FILES[1]!), '1');
    tercel(['install', 'cuda', '--from', from]);
    expect(readFileSync(path.join(folder, CUDA_FILES[1]!), 'utf8')).toBe('1');
  });

  it('writes all files or none', () => {
    const text = path.join(scratch, 'text');
    writeFileSync(text, 'no archive');
    for (const [from, reason] of [
      [archive([CUDA_FILES[0]!]), 'has no libonnxruntime_providers_cuda.so; nothing was written'],
      [scratch + '/nope', 'does not exist'],
      [text, 'is no folder, wheel or NuGet package'],
    ] as const) {
      const { stderr, status } = tercel(['install', 'cuda', '--from', from]);
      expect(stderr).toContain(reason);
      expect(stderr.trim().split('\n')).toHaveLength(1);
      expect(status).toBe(2);
      expect(readdirSync(folder)).toEqual(['libonnxruntime.so.1']);
    }
    // A place that cannot be written to: a folder of the file's name.
    mkdirSync(path.join(folder, CUDA_FILES[1]!));
    const { stderr, status } = tercel(['install', 'cuda', '--from', archive(CUDA_FILES)]);
    expect(status).toBe(1);
    expect(stderr).toContain(`tercel install: cannot write to ${folder}: `);
    expect(
      readdirSync(folder).filter((name) => name.includes('.so.') && name !== 'libonnxruntime.so.1'),
    ).toEqual([]);
  });

  it('says what it would do', () => {
    const { stdout, status } = tercel(['install', 'tensorrt', '--dry-run']);
    expect(status).toBe(0);
    expect(stdout).toContain(`tensorrt needs, in ${folder}:`);
    expect(stdout).toContain('libnvinfer.so.10: TensorRT 10 for CUDA 12');
    expect(stdout).toContain('LD_LIBRARY_PATH');
    expect(existsSync(path.join(folder, CUDA_FILES[0]!))).toBe(false);
  });

  it('does not download for a library that is not the package’s, nor for what it does not know', () => {
    const other = tercel(['install', 'cuda']);
    expect(other.status).toBe(1);
    expect(other.stderr).toMatch(/not that of onnxruntime-node; bring the files with --from/);
    const strange = tercel(['install', 'webgpu']);
    expect(strange.status).toBe(2);
    expect(strange.stderr).toContain('those that have are cuda, tensorrt');
  });
});

it.skipIf(!isLinux)('reads what shared objects need, and finds it as the loader does', () => {
  const file = stats().library!.path;
  expect(readNeeds(file).needed).toContain('libc.so.6');
  expect(new LibrarySearch('').missing(file)).toEqual([]);
  const provider = path.join(built, 'libfake_provider.so');
  expect(new LibrarySearch('').missing(provider)).toEqual(['libcudart.so.12']);
  expect(new LibrarySearch(path.join(built, 'fake-cuda')).missing(provider)).toEqual([]);
  const text = path.join(scratch, 'text.so');
  writeFileSync(text, 'x'.repeat(100));
  expect(() => readNeeds(text)).toThrow(/no 64-bit ELF file/);
});
