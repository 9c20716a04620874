import { InvalidInputError } from '../errors.js';
import type { NativeDeviceBuffer } from '../native.js';
import { dtypeFromCode, viewOf, type DType, type Tensor } from '../tensor.js';
import { task } from './mailbox.js';

/** What a binding is given to take such a tensor as its own. */
const buffers = new WeakMap<DeviceTensor, NativeDeviceBuffer>();

/** @internal */
export function bufferOf(tensor: DeviceTensor): NativeDeviceBuffer {
  return buffers.get(tensor)!;
}

/**
 * A tensor in a GPU's memory: an input or output of a binding that stays there between runs. The memory
 * lives until the bindings that have it are closed and the tensor is garbage collected.
 */
export class DeviceTensor {
  readonly dtype: DType;
  readonly shape: readonly number[];
  /** The GPU's number, as CUDA counts. */
  readonly device: number;

  /** @internal */
  constructor(dtype: number, shape: readonly number[], buffer: NativeDeviceBuffer) {
    this.dtype = dtypeFromCode(dtype)!;
    this.shape = shape;
    this.device = buffer.device;
    buffers.set(this, buffer);
  }

  #view(data: unknown, what: string): ArrayBufferView {
    const { bytes } = bufferOf(this);
    if (!ArrayBuffer.isView(data) || data instanceof DataView || data.byteLength !== bytes) {
      const got = ArrayBuffer.isView(data) ? `${data.byteLength} bytes` : typeof data;
      throw new InvalidInputError(
        `${what}: expected a typed array of ${bytes} bytes (${this.dtype}[${this.shape.join()}]), got ${got}`,
      );
    }
    return data;
  }

  /**
   * Copies it to the host.
   *
   * @throws (rejects) RunError when the GPU fails; OverloadError when the arena is full
   */
  async read(): Promise<Tensor> {
    const buffer = await task(
      (slot) => bufferOf(this).read(slot),
      (result) => result as ArrayBuffer,
    );
    const data = viewOf(this.dtype as Exclude<DType, 'string'>, buffer);
    return { dtype: this.dtype, shape: this.shape, data };
  }

  /**
   * Copies `data` to it: a typed array of its bytes, which may be changed at once.
   *
   * @throws (rejects) InvalidInputError for another number of bytes; RunError when the GPU fails;
   *   OverloadError when the arena is full
   */
  async write(data: ArrayBufferView): Promise<void> {
    const view = this.#view(data, 'write');
    await task(
      (slot) => bufferOf(this).write(slot, view),
      () => undefined,
    );
  }

  /** As read(), into a typed array, on the calling thread, which waits. */
  readSync(into: ArrayBufferView): void {
    bufferOf(this).readSync(this.#view(into, 'readSync'));
  }

  /** As write(), on the calling thread, which waits. */
  writeSync(data: ArrayBufferView): void {
    bufferOf(this).writeSync(this.#view(data, 'writeSync'));
  }
}
