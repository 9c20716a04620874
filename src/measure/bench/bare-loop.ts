// The bare ONNX Runtime C call in a loop: what everything is compared with. See native/measure/bare_loop.h.
import { native, type NativeBareLoop } from '../../native.js';
import { dtypeCodes, type Tensor } from '../../tensor.js';
import type { ModelOptions } from '../../types/model-options.js';
import { nativeOptions } from '../../runtime/load-options.js';
import { task } from '../../runtime/mailbox.js';
import { startRuntime } from '../../runtime/runtime.js';

export interface BareRuns {
  runs: number;
  elapsedNs: number;
  /** Of the process, meanwhile. */
  cpuNs: number;
}

/** A session of its own, its inputs and outputs fixed. */
export class BareLoop {
  readonly #native: NativeBareLoop;

  private constructor(made: NativeBareLoop) {
    this.#native = made;
  }

  /**
   * @param path of the model
   * @param options threads, graph level, providers and such are taken, lanes and batching are not
   * @param inputs numbers only
   * @param loops that run side by side, each on a thread
   * @throws ModelError when it does not load; RunError when the inputs do not run
   */
  static make(
    path: string,
    options: ModelOptions,
    inputs: Readonly<Record<string, Tensor>>,
    loops: number,
  ): Promise<BareLoop> {
    startRuntime();
    const listed = Object.entries(inputs).map(([name, { dtype, shape, data }]) => {
      const view = data as Float32Array;
      return {
        name,
        dtype: dtypeCodes[dtype],
        dims: shape,
        bytes: new Uint8Array(view.buffer, view.byteOffset, view.byteLength),
      };
    });
    return task(
      (slot) => native.bareLoop(slot, path, { ...nativeOptions(options), key: '' }, listed, loops),
      (made) => new BareLoop(made as NativeBareLoop),
    );
  }

  /** Runs for so long, and once at least. One call at a time. */
  run(durationMs: number): Promise<BareRuns> {
    return task(
      (slot) => this.#native.run(slot, Math.round(durationMs * 1e6)),
      (result) => result as BareRuns,
    );
  }

  /** Lets the session go. Not while it runs. */
  close(): void {
    this.#native.close();
  }
}
