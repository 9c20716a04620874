// The files of the CUDA and TensorRT providers: which ONNX Runtime wants, and where they come from.
//
// They are some hundred megabytes, so onnxruntime-node does not bring them; its install script downloads
// them. Where that is not possible they are taken from a package that was brought here otherwise.
import { spawn } from 'node:child_process';
import {
  copyFileSync,
  existsSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { unzipSync } from 'fflate';
import { InvalidInputError, ModelError } from '../../errors.js';
import { libraryFile } from '../../runtime/runtime.js';

const PROVIDER_FILE = /^libonnxruntime_providers_[a-z]+\.so$/;

export interface ProviderFiles {
  /** Where they belong: the folder of the library. */
  folder: string;
  /** Those that a provider opens. */
  files: readonly string[];
  /** Of them, those that are there. */
  present: readonly string[];
}

const filesOf: Record<string, readonly string[]> = {
  cuda: ['libonnxruntime_providers_shared.so', 'libonnxruntime_providers_cuda.so'],
  tensorrt: [
    'libonnxruntime_providers_shared.so',
    'libonnxruntime_providers_cuda.so',
    'libonnxruntime_providers_tensorrt.so',
  ],
};

/** Providers that can be installed. */
export const installable: readonly string[] = Object.keys(filesOf);

/**
 * What a provider needs beside the library, and what of it is there.
 *
 * @throws InvalidInputError for a provider that has no files of its own; ModelError without a library
 */
export function providerFiles(name: string): ProviderFiles {
  const files = filesOf[name];
  if (!files) {
    throw new InvalidInputError(
      `provider "${name}" has no files to install; those that have are ${installable.join(', ')}`,
    );
  }
  const folder = path.dirname(libraryFile());
  return { folder, files, present: files.filter((file) => existsSync(path.join(folder, file))) };
}

/** Whether the packages have the files for a platform. */
function checkPlatform(): void {
  if (process.platform === 'linux' && process.arch === 'x64') return;
  throw new InvalidInputError(
    `there are no CUDA or TensorRT providers for ${process.platform} ${process.arch} in the packages; ` +
      'build ONNX Runtime with them, and name its library with TERCEL_ORT_LIBRARY',
  );
}

/**
 * Takes a provider's files from a folder, a wheel (onnxruntime-gpu) or a NuGet package
 * (Microsoft.ML.OnnxRuntime.Gpu.Linux), and puts them beside the library. All of them, or none.
 *
 * @param from of the version that the library has: others are refused by ONNX Runtime when they load
 * @returns the files written
 * @throws InvalidInputError when something is missing in it; ModelError when they cannot be written
 */
export function installFrom(name: string, from: string): string[] {
  const { folder, files } = providerFiles(name);
  if (!existsSync(from)) throw new InvalidInputError(`${from} does not exist`);
  const write: { file: string; bring: (to: string) => void }[] = [];
  const missing: string[] = [];
  const plan = (file: string, bring: ((to: string) => void) | undefined): void => {
    if (!bring) {
      missing.push(file);
      return;
    }
    write.push({ file: path.join(folder, file), bring });
  };
  if (statSync(from).isDirectory()) {
    const found = new Map<string, string>();
    for (const entry of readdirSync(from, { recursive: true, withFileTypes: true })) {
      if (entry.isFile() && PROVIDER_FILE.test(entry.name) && !found.has(entry.name)) {
        found.set(entry.name, path.join(entry.parentPath ?? entry.path, entry.name));
      }
    }
    for (const file of files) {
      const source = found.get(file);
      plan(file, source === undefined ? undefined : (to) => copyFileSync(source, to));
    }
  } else {
    let entries: Record<string, Uint8Array>;
    try {
      entries = unzipSync(readFileSync(from), {
        filter: (entry) => files.includes(path.posix.basename(entry.name)),
      });
    } catch (cause) {
      throw new InvalidInputError(
        `${from} is no folder, wheel or NuGet package: ${(cause as Error).message}`,
        { cause },
      );
    }
    for (const file of files) {
      const entry = Object.entries(entries).find(([at]) => path.posix.basename(at) === file);
      plan(file, entry && ((to) => writeFileSync(to, entry[1], { mode: 0o755 })));
    }
  }
  if (missing.length > 0) {
    throw new InvalidInputError(
      `${from} has no ${missing.join(', ')}; nothing was written to ${folder}`,
    );
  }
  // Whole, and only then in their places: a server may have the old ones open.
  const temporary = (file: string): string => `${file}.${process.pid}`;
  try {
    for (const { file, bring } of write) bring(temporary(file));
    for (const { file } of write) renameSync(temporary(file), file);
  } catch (cause) {
    for (const { file } of write) rmSync(temporary(file), { force: true });
    throw new ModelError(`cannot write to ${folder}: ${(cause as Error).message}`, { cause });
  }
  return write.map(({ file }) => file);
}

/**
 * Downloads a provider's files by onnxruntime-node's own install script.
 *
 * @param print takes what the script says, line by line
 * @throws InvalidInputError where there are none for this platform; ModelError when the library is another
 *   one's, or the script fails
 */
export async function installProvider(name: string, print: (line: string) => void): Promise<void> {
  const { folder, files } = providerFiles(name);
  checkPlatform();
  let script: string;
  try {
    const require = createRequire(import.meta.url);
    const root = path.dirname(require.resolve('onnxruntime-node/package.json'));
    script = path.join(root, 'script/install.js');
    if (!folder.startsWith(root + path.sep)) {
      throw new Error(`the library in use is ${libraryFile()}, not that of onnxruntime-node`);
    }
  } catch (cause) {
    throw new ModelError(
      `${(cause as Error).message}; bring the files with --from, of the same version`,
      { cause },
    );
  }
  let complaint = '';
  // Run by npm in a project's folder, the script would take itself for a part of that project's install.
  const { npm_package_json: _, npm_config_local_prefix: __, ...env } = process.env;
  const code = await new Promise<number | null>((resolve, reject) => {
    const child = spawn(process.execPath, [script], {
      cwd: path.dirname(script),
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...env, ONNXRUNTIME_NODE_INSTALL: 'true' }, // whatever is there
    });
    child.stdout.on('data', (chunk: Buffer) => {
      for (const line of chunk.toString().split('\n').filter(Boolean)) print(line);
    });
    child.stderr.on('data', (chunk: Buffer) => (complaint += chunk.toString()));
    child.on('error', reject);
    child.on('close', resolve);
  });
  const absent = files.filter((file) => !existsSync(path.join(folder, file)));
  if (code !== 0 || absent.length > 0) {
    const reason = /^\s*\w*Error: (.+)$/m.exec(complaint)?.[1];
    throw new ModelError(
      `onnxruntime-node's install script did not bring ${absent.join(', ') || 'the files'}` +
        `${reason === undefined ? '' : `: ${reason}`}; without a way to its source, bring a wheel of onnxruntime-gpu or a ` +
        'package of Microsoft.ML.OnnxRuntime.Gpu.Linux of the same version with --from',
    );
  }
}
