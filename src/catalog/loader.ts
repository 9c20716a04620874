// Loads models: one session for all that ask for the same.
import { realpathSync, statSync } from 'node:fs';
import { InvalidInputError, ModelError } from '../errors.js';
import { native, type NativeModel } from '../native.js';
import { checkModelOptions, nativeOptions } from '../runtime/load-options.js';
import { task } from '../runtime/mailbox.js';
import { Model } from '../runtime/model.js';
import { startRuntime } from '../runtime/runtime.js';
import type { ModelOptions } from '../types/model-options.js';
import { enterBuild, keepsEngines } from './tensorrt-cache.js';
import { warm } from './warm-up.js';

/** The file as it is now: a file that was replaced is another model. */
function identify(path: string): { path: string; identity: string } {
  try {
    const real = realpathSync(path);
    const file = statSync(real, { bigint: true });
    return { path: real, identity: `${real}:${file.dev}:${file.ino}:${file.size}:${file.mtimeNs}` };
  } catch (cause) {
    throw new ModelError(`cannot load model "${path}": ${(cause as Error).message}`, { cause });
  }
}

/**
 * Loads an ONNX model on a thread of its own. The same path with the same options is one session in
 * the process, whichever JS threads load it; it goes when the last of them closes it.
 *
 * @param source path of an .onnx or .ort file (external data is read beside it), or the file's bytes,
 *   which are copied
 * @throws ModelError when the file, a provider or the library cannot be loaded; InvalidInputError for a
 *   wrong option; the signal's reason when it aborts
 */
export async function loadModel(
  source: string | Uint8Array,
  options: ModelOptions = {},
): Promise<Model> {
  checkLoad(source, options);
  if (!keepsEngines(options)) return loadShared(source, options);
  const build = await enterBuild(source, options, options.signal);
  try {
    const model = await loadShared(source, build.options);
    await build.done(model);
    return model;
  } finally {
    build.leave();
  }
}

/** @throws InvalidInputError for a wrong option; the signal's reason */
function checkLoad(source: unknown, options: ModelOptions): void {
  if (typeof source !== 'string' && !(source instanceof Uint8Array)) {
    throw new InvalidInputError(`loadModel: expected a path or a Uint8Array, got ${typeof source}`);
  }
  checkModelOptions(options);
  options.signal?.throwIfAborted();
}

/**
 * As loadModel(), without a look at what TensorRT keeps.
 *
 * @internal
 * @param policyOf whose policy the session has: others do not share it
 */
export async function loadShared(
  source: string | Uint8Array,
  options: ModelOptions,
  policyOf?: string,
): Promise<Model> {
  checkLoad(source, options);
  const fromPath = typeof source === 'string';
  startRuntime();
  const written = nativeOptions(options);
  const external = options.externalData;
  let file: { path: string; bytes?: undefined } | { path?: undefined; bytes: Uint8Array };
  let key = '';
  if (fromPath) {
    const { path, identity } = identify(source);
    file = { path };
    // Sharing covers what stays the same: not bytes given in the call, not files written on the way.
    if (!external && !written.optimizedModelPath && !written.profilePrefix) {
      const { inline: _inline, throttle: _throttle, ...shared } = written;
      // One session has one policy.
      const { weight, batching, gpu } = options;
      key = identity + JSON.stringify([shared, weight, batching, gpu, policyOf]);
    }
  } else {
    file = { bytes: source };
  }
  const model = await task(
    (slot) =>
      native.load(
        slot,
        {
          ...file,
          ...(external && {
            externalNames: Object.keys(external),
            externalBytes: Object.values(external),
          }),
        },
        { ...written, key },
      ),
    (result) => new Model(result as NativeModel),
    options.signal,
  );
  try {
    const decided =
      options.batching === 'auto' || (options.batching && options.batching.maxBatch === undefined)
        ? await warm(model, {
            batching: options.batching,
            warmUp: false,
            throttle: written.throttle,
            threads: options.threads,
            lanes: options.lanes,
            gpu: options.gpu,
          })
        : { batching: options.batching };
    // The engine configures what it loads, once it is warmed.
    const isOurs = policyOf === undefined;
    const isSet = options.weight !== undefined || (model.onGpu && options.gpu?.graphs);
    if (isOurs && (decided.batching || isSet)) {
      model.configure({ ...options, ...decided });
    }
  } catch (error) {
    await model.close();
    throw error;
  }
  for (const warning of model.warnings) process.emitWarning(warning, 'TercelWarning');
  return model;
}
