import { InvalidInputError } from '../errors.js';
import {
  native,
  type NativeBinding,
  type NativeModel,
  type NativeBoundValue,
  type NativeValueRequest,
} from '../native.js';
import { countElements, dtypeFromCode, type Tensor } from '../tensor.js';
import { bufferOf, DeviceTensor } from './device-tensor.js';
import { runFlags, settleInline } from './inline.js';
import { startPolling, wait } from './mailbox.js';
import { META_FLAGS, META_RUN_US, meta } from './layout.js';
import { tensorOver, type Marshaller } from './marshal.js';
import { readPriority, readSignal, readTimeout, writeRun, type RunOptions } from './run-options.js';

/** Shapes by input or output name; or another binding's tensor on the GPU, to be used where it is. */
export type BindShapes = Readonly<Record<string, readonly number[] | DeviceTensor>>;

export interface BindOptions {
  /**
   * Inputs and outputs that stay on the GPU between runs, such as a decoder's state: they are DeviceTensors in
   * `onDevice`, and nothing of them is copied by a run.
   */
  onDevice?: readonly string[];
}

function deviceTensors(values: readonly NativeBoundValue[]): Record<string, DeviceTensor> {
  const byName: Record<string, DeviceTensor> = {};
  for (const { name, dtype, shape, onDevice } of values) {
    if (onDevice) byName[name] = new DeviceTensor(dtype, shape, onDevice);
  }
  return byName;
}

function tensors(values: readonly NativeBoundValue[]): Record<string, Tensor> {
  const byName: Record<string, Tensor> = {};
  for (const value of values) {
    if (value.onDevice) continue;
    byName[value.name] = value.buffer
      ? tensorOver(value.dtype, value.shape, value.buffer)
      : {
          dtype: dtypeFromCode(value.dtype)!,
          shape: value.shape,
          data: new Array<string>(countElements(value.shape)).fill(''),
        };
  }
  return byName;
}

function stringValues(values: readonly NativeBoundValue[]): [number, string][] {
  return values.flatMap((value, i) =>
    value.buffer || value.onDevice ? [] : [[i, value.name] as [number, string]],
  );
}

/**
 * Tensors fixed once and run many times, the "prepared statement". Write into the data of `inputs`, run,
 * read the data of `outputs`: nothing is copied or allocated. One run at a time; more bindings of a
 * model run side by side. The memory lives until the binding is closed and its tensors are dropped.
 */
export class Binding {
  readonly inputs: Readonly<Record<string, Tensor>>;
  readonly outputs: Readonly<Record<string, Tensor>>;
  /** Inputs and outputs that are on the GPU, and not among the others. */
  readonly onDevice: Readonly<Record<string, DeviceTensor>>;
  /**
   * Runs on the calling thread, which waits.
   *
   * @throws RunError; InvalidInputError while run() is under way; ClosedError
   */
  readonly runSync: () => void;
  readonly #native: NativeBinding;
  readonly #stringInputs: [number, string][];
  readonly #stringOutputs: [number, string][];

  /** @internal */
  constructor(
    model: NativeModel,
    marshaller: Marshaller,
    shapes: BindShapes,
    { onDevice = [] }: BindOptions = {},
  ) {
    const names = new Set([...marshaller.inputs, ...marshaller.outputs].map((value) => value.name));
    for (const name of [...Object.keys(shapes), ...onDevice]) {
      if (!names.has(name)) {
        throw new InvalidInputError(
          `bind: "${name}" is no input or output; the model has ${[...names].map((n) => `"${n}"`).join(', ')}`,
        );
      }
    }
    for (const [name, shape] of Object.entries(shapes)) {
      if (shape instanceof DeviceTensor) continue;
      if (!Array.isArray(shape)) {
        throw new InvalidInputError(`bind: the shape of "${name}" must be an array of numbers`);
      }
      countElements(shape as readonly number[]);
    }
    const request = ({ name }: { name: string }): NativeValueRequest | undefined => {
      const given = shapes[name];
      if (given instanceof DeviceTensor) {
        return { shape: given.shape, onDevice: true, lease: bufferOf(given).lease };
      }
      const stays = onDevice.includes(name);
      return given || stays ? { shape: given, onDevice: stays } : undefined;
    };
    // The type is the memory's as well: another model reads it as what this one wrote.
    for (const { name, dtype } of [...marshaller.inputs, ...marshaller.outputs]) {
      const given = shapes[name];
      if (given instanceof DeviceTensor && given.dtype !== dtype) {
        throw new InvalidInputError(`bind: "${name}": expected ${dtype}, got ${given.dtype}`);
      }
    }
    const bound = model.bind(marshaller.inputs.map(request), marshaller.outputs.map(request));
    this.#native = bound;
    this.inputs = tensors(bound.inputs);
    this.outputs = tensors(bound.outputs);
    this.onDevice = { ...deviceTensors(bound.inputs), ...deviceTensors(bound.outputs) };
    this.#stringInputs = stringValues(bound.inputs);
    this.#stringOutputs = stringValues(bound.outputs);
    // Without strings the native function itself is the method: nothing stands between.
    this.runSync =
      this.#stringInputs.length + this.#stringOutputs.length === 0
        ? bound.runSync
        : () => {
            this.#writeStrings();
            bound.runSync();
            this.#readStrings();
          };
  }

  #writeStrings(): void {
    for (const [index, name] of this.#stringInputs) {
      this.#native.setStrings(index, [...(this.inputs[name]!.data as string[])]);
    }
  }

  #readStrings(): void {
    for (const [index, name] of this.#stringOutputs) {
      const data = this.outputs[name]!.data as string[];
      const strings = this.#native.getStrings(index);
      for (let i = 0; i < strings.length; i++) data[i] = strings[i]!;
    }
  }

  /**
   * Runs without blocking the calling thread. Leave the tensors alone until it resolves.
   *
   * @throws (rejects) as Model.run(); InvalidInputError while another run() is under way
   */
  run(options?: Pick<RunOptions, 'signal' | 'timeoutMs' | 'priority'>): Promise<void> {
    try {
      const signal = readSignal(options);
      if (this.#stringInputs.length > 0) this.#writeStrings();
      const slot = writeRun(readPriority(options), readTimeout(options));
      meta[META_FLAGS] = runFlags();
      if (this.#native.run() !== true) {
        if (this.#stringOutputs.length > 0) this.#readStrings();
        return settleInline<void>(undefined, meta[META_RUN_US]!);
      }
      const poll = meta[META_RUN_US] === 1;
      return new Promise<void>((resolve, reject) => {
        const onAbort = (): void => native.cancel(slot);
        const end = (): void => signal?.removeEventListener('abort', onAbort);
        wait({
          targets: undefined,
          resolve: () => {
            end();
            if (this.#stringOutputs.length > 0) this.#readStrings();
            resolve();
          },
          reject: (error) => {
            end();
            reject(signal?.aborted ? (signal.reason as Error) : (error as Error));
          },
        });
        if (poll) startPolling();
        signal?.addEventListener('abort', onAbort, { once: true });
      });
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /** Takes no more runs. A run under way rejects with ClosedError. Closing twice is the same as once. */
  close(): void {
    this.#native.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
