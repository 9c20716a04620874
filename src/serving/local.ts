// Exchanges of a program in this process: Engine.infer().
import { CancelledError } from '../errors.js';
import { planFor } from '../protocol/plan.js';
import {
  readFlags,
  readPriority,
  readSignal,
  readTimeout,
  type RunOptions,
} from '../runtime/run-options.js';
import { isTensor, type Tensor, type Value } from '../tensor.js';
import type { Inputs, OutputSelection, Servable, Values } from '../types/servable.js';
import { AwaitedExchange } from './awaited-exchange.js';
import type { ExchangeContext } from './exchange.js';
import { IN_PROCESS } from './peer.js';
import { prepareOutputs, timeoutOf } from './prepare.js';

export interface InferOptions extends RunOptions {
  /** A version or a label. Default: the newest. */
  version?: string;
}

export class LocalExchange extends AwaitedExchange {
  override readonly from = 'program';
  override readonly sharesResults: boolean;
  readonly #options: InferOptions;

  constructor(context: ExchangeContext, options: InferOptions = {}) {
    super(context, 'infer', IN_PROCESS);
    this.#options = options;
    this.sharesResults = options.results === 'shared';
    this.concurrent = options.concurrent ?? false;
  }

  get operation(): string {
    return `infer ${this.model}`;
  }

  /** Throws (rejects) as Engine.infer(). */
  async infer(name: string, inputs: Inputs): Promise<Values> {
    const signal = readSignal(this.#options);
    this.model = name;
    const onAbort = (): void => this.abort(new CancelledError('the request was taken back'));
    signal?.addEventListener('abort', onAbort, { once: true });
    try {
      const waiting = this.enter();
      if (waiting) {
        // The caller goes on with its buffers.
        inputs = copyOf(inputs);
        await waiting;
      }
      if (this.error) throw this.error;
      return await this.complete(() => this.#run(name, inputs));
    } catch (error) {
      this.failWork(error); // where it was not settled by then
      throw signal?.aborted ? signal.reason : error;
    } finally {
      signal?.removeEventListener('abort', onAbort);
    }
  }

  #run(name: string, inputs: Inputs): Promise<Values> {
    const { version, outputs, priority } = this.#options;
    readFlags(this.#options);
    const servable = this.find(name, version);
    const timeoutMs = readTimeout(this.#options) || undefined;
    this.servable = servable;
    this.plan = {
      ...planFor({ timeoutMs }),
      preparedFor: servable,
      prepared: prepareOutputs(servable, outputs),
      priority: readPriority({ priority: priority ?? servable.about?.defaults?.priority }),
      timeoutMs: timeoutOf({ timeoutMs }, servable),
    };
    const values = this.values(servable, inputs);
    return outputs ? values.then((all) => chosen(servable, all, outputs)) : values;
  }
}

/** The outputs that were asked for, in the tensors that were given; models see to that by themselves. */
function chosen(servable: Servable, values: Values, outputs: OutputSelection): Values {
  if (servable.accepts === 'raw') return values;
  const chosen: Record<string, Value> = {};
  const names = Array.isArray(outputs) ? (outputs as readonly string[]) : Object.keys(outputs);
  for (const name of names) {
    const value = values[name]!;
    const given = Array.isArray(outputs) ? null : (outputs as Record<string, Tensor | null>)[name];
    if (given && isTensor(value)) {
      (given.data as Float32Array).set(value.data as Float32Array);
      chosen[name] = given;
    } else {
      chosen[name] = value;
    }
  }
  return chosen;
}

function copyOf(inputs: Inputs): Inputs {
  const copy = (value: Value): Value => {
    if (Array.isArray(value)) return value.map(copy);
    if (!isTensor(value)) return value;
    const data = (value.data as Float32Array).slice() as unknown as Tensor['data'];
    return { dtype: value.dtype, shape: [...value.shape], data };
  };
  return Object.fromEntries(Object.entries(inputs).map(([name, value]) => [name, copy(value)]));
}
