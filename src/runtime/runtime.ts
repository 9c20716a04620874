// The process's one ONNX Runtime: where its library is, and its settings.
import { existsSync, readdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { InvalidInputError, ModelError } from '../errors.js';
import { native } from '../native.js';
import type { ProcessStats } from '../types/stats.js';
import type { LogLevel, RuntimeOptions } from '../types/runtime-options.js';
import type { ProviderDevice } from '../types/provider.js';

const require = createRequire(import.meta.url);

const logLevels: readonly LogLevel[] = ['verbose', 'info', 'warning', 'error', 'fatal'];

/** ONNX Runtime's number for a level. */
export function logLevelCode(level: LogLevel | undefined): number {
  const code = logLevels.indexOf(level ?? 'fatal');
  if (code < 0) {
    throw new InvalidInputError(
      `logLevel: expected ${logLevels.map((l) => `'${l}'`).join(', ')}, got ${JSON.stringify(level)}`,
    );
  }
  return code;
}

/** The library inside the onnxruntime-node package: bin/napi-v6/linux/x64/libonnxruntime.so.1. */
function packagedLibrary(): string {
  let root: string;
  try {
    root = path.dirname(require.resolve('onnxruntime-node/package.json'));
  } catch (cause) {
    throw new ModelError(
      'no ONNX Runtime library: the package onnxruntime-node is not installed; install it, or name a ' +
        'library with TERCEL_ORT_LIBRARY',
      { cause },
    );
  }
  const bin = path.join(root, 'bin');
  const wanted =
    process.platform === 'darwin' ? /^libonnxruntime.*\.dylib$/ : /^libonnxruntime\.so/;
  for (const version of existsSync(bin) ? readdirSync(bin) : []) {
    const folder = path.join(bin, version, process.platform, process.arch);
    const file = existsSync(folder)
      ? readdirSync(folder).find((name) => wanted.test(name))
      : undefined;
    if (file) return path.join(folder, file);
  }
  throw new ModelError(
    `no ONNX Runtime library: the package onnxruntime-node has none for ${process.platform} ` +
      `${process.arch}; name one with TERCEL_ORT_LIBRARY`,
  );
}

/**
 * The library that the process uses, or will.
 *
 * @throws ModelError when none is named and the package brings none
 */
export function libraryFile(): string {
  return path.resolve(settings.library ?? (process.env['TERCEL_ORT_LIBRARY'] || packagedLibrary()));
}

let settings: RuntimeOptions = {};
let started = false;

/**
 * Sets process-wide options. Call it before the first model or allocation of the process; other JS
 * threads share what the first one started.
 *
 * @throws InvalidInputError once this thread has started the runtime.
 */
export function configure(options: RuntimeOptions): void {
  if (started) throw new InvalidInputError('configure() comes too late: ONNX Runtime is running');
  logLevelCode(options.logLevel);
  const maxBytes = options.arena?.maxBytes;
  if (maxBytes !== undefined && (!Number.isSafeInteger(maxBytes) || maxBytes < 0)) {
    throw new InvalidInputError(
      `arena.maxBytes: expected a whole number of bytes, got ${maxBytes}`,
    );
  }
  const pin = options.arena?.pin;
  if (pin !== undefined && typeof pin !== 'boolean' && (typeof pin !== 'string' || pin === '')) {
    throw new InvalidInputError(
      `arena.pin: expected true, false or the path of libcudart, got ${JSON.stringify(pin)}`,
    );
  }
  const threads = options.computeThreads;
  if (threads !== undefined && (!Number.isSafeInteger(threads) || threads < 1)) {
    throw new InvalidInputError(`computeThreads: expected 1 or more, got ${threads}`);
  }
  settings = { ...options };
}

/** Opens the library and makes the environment, once. */
export function startRuntime(): void {
  if (started) return;
  const pin = settings.arena?.pin;
  native.start({
    library: libraryFile(),
    maxBytes: settings.arena?.maxBytes ?? 0,
    hugePages: settings.arena?.hugePages ?? true,
    lockMemory: settings.arena?.lock ?? false,
    pinMemory: pin !== undefined && pin !== false,
    neverPin: pin === false,
    cudaLibrary: typeof pin === 'string' ? pin : '',
    logLevel: logLevelCode(settings.logLevel),
  });
  if (settings.computeThreads) native.setComputeThreads(settings.computeThreads);
  started = true;
}

/** What the process holds and has done. Cheap enough to be scraped. */
export function stats(): ProcessStats {
  return {
    library: null,
    arena: {
      reservedBytes: 0,
      leasedBytes: 0,
      peakLeasedBytes: 0,
      allocations: 0,
      frees: 0,
      slabs: 0,
      hugePages: false,
      locked: false,
      pinned: false,
    },
    leases: 0,
    copies: { bytesIn: 0, bytesOut: 0 },
    laneWakeUs: 0,
    devices: [],
    models: [],
    ...native.stats(),
  };
}

/** Returns free slabs and free heap pages to the system. Closing a model does it too. */
export function trim(): void {
  native.trim();
}

/** Names of the execution providers that the library was built with, such as 'CPUExecutionProvider'. */
export function availableProviders(): string[] {
  startRuntime();
  return native.providers();
}

/**
 * Makes the execution providers of a plugin library known to the process (ONNX Runtime's
 * RegisterExecutionProviderLibrary, 1.23 and newer), for as long as it lives: their names can then be among
 * a model's `providers`.
 *
 * @param library its path
 * @returns the devices that they offer here; none where the machine has none for them
 * @throws ModelError when it cannot be opened or is no such library; InvalidInputError for no path
 */
export function registerProvider(library: string): ProviderDevice[] {
  if (typeof library !== 'string' || library === '') {
    throw new InvalidInputError(
      `registerProvider: expected a path, got ${JSON.stringify(library)}`,
    );
  }
  startRuntime();
  const file = path.resolve(library);
  native.registerProvider(file);
  return native.providerDevices(file);
}

/** The devices that registered providers offer, and the CPU. */
export function providerDevices(): ProviderDevice[] {
  startRuntime();
  return native.providerDevices('');
}
