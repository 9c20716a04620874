// Models in this process as points of a sweep: sessions and C loops are made once for all that share them.
import { createHash } from 'node:crypto';
import { createReadStream, existsSync, statSync } from 'node:fs';
import path from 'node:path';
import { BareLoop } from './bare-loop.js';
import { loadModel } from '../../catalog/loader.js';
import type { Model } from '../../runtime/model.js';
import { InvalidInputError } from '../../errors.js';
import type { ModelOptions } from '../../types/model-options.js';
import { CallSubject } from '../load/call-load.js';
import { makeInputs, rowsOf, type InputChoices } from '../load/inputs.js';
import type { Arrivals } from '../load/load.js';
import type { Opened, PointPlan } from './runner.js';

/** How a model is called. */
export const calls = ['run', 'sync', 'binding'] as const;
export type Call = (typeof calls)[number];

export interface ModelPoint {
  readonly file: string;
  readonly name: string;
  readonly options: ModelOptions;
  readonly arrivals: Arrivals;
  readonly call: Call;
  readonly inputs: InputChoices;
  readonly settings: PointPlan['settings'];
  readonly id: string;
}

/** What a file's model is called: its name, or in a repository (digits/1/model.onnx) its folder's. */
export function modelName(file: string): string {
  const parts = path.resolve(file).split(path.sep);
  const isVersion = /^\d+$/.test(parts.at(-2) ?? '');
  return isVersion && parts.length > 3 ? parts.at(-3)! : path.basename(file, path.extname(file));
}

/** A model file's variant of another precision: model.fp16.onnx beside model.onnx. */
export function variantOf(file: string, precision: string): string {
  const { dir, name, ext } = path.parse(file);
  const variant = path.join(dir, `${name}.${precision}${ext}`);
  if (!existsSync(variant)) {
    throw new InvalidInputError(`precision ${precision}: there is no ${variant} beside ${file}`);
  }
  return variant;
}

/** Size and SHA-256 of a file. */
export async function fingerprint(file: string): Promise<{ bytes: number; sha256: string }> {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(file)) hash.update(chunk as Buffer);
  return { bytes: statSync(file).size, sha256: hash.digest('hex') };
}

/** What is done at once, as a promise; what it throws too. */
function soon(work: () => unknown): Promise<unknown> {
  try {
    return Promise.resolve(work());
  } catch (error) {
    return Promise.reject(error);
  }
}

export class ModelBench {
  readonly #models = new Map<string, Promise<Model>>();
  readonly #loops = new Map<string, Promise<BareLoop>>();
  readonly #configurations = new Set<string>();
  readonly #withReference: boolean;

  /** @param withReference whether the bare C loop is measured beside each point */
  constructor(withReference: boolean) {
    this.#withReference = withReference;
  }

  plan(point: ModelPoint): PointPlan {
    const { id, name, settings, arrivals } = point;
    this.#configurations.add(JSON.stringify([point.file, point.options]));
    let opened: { round: number; made: Promise<Opened> } | undefined;
    const open = (round: number): Promise<Opened> => {
      if (opened?.round !== round) opened = { round, made: this.#open(point) };
      return opened.made;
    };
    return { id, model: name, settings, arrivals, open };
  }

  async #open({ file, options, arrivals, call, inputs: choices }: ModelPoint): Promise<Opened> {
    const key = JSON.stringify([file, options]);
    const model = await this.#once(this.#models, key, () => loadModel(file, options));
    const inputs = await makeInputs(model.inputs, choices);
    const rows = rowsOf(model.inputs, inputs, choices.batch);
    let run: () => Promise<unknown>;
    if (call === 'run') run = () => model.run(inputs);
    else if (call === 'sync') run = () => soon(() => model.runSync(inputs));
    else {
      const binding = model.bind(
        Object.fromEntries(Object.entries(inputs).map(([input, { shape }]) => [input, [...shape]])),
      );
      for (const [input, { data }] of Object.entries(inputs)) {
        (binding.inputs[input]!.data as Float32Array).set(data as Float32Array);
      }
      run = () => soon(() => binding.runSync());
    }
    const isWide = call === 'run';
    const lanes = options.lanes ?? 1;
    // As many side by side as there are requests to do.
    const loops = !isWide
      ? 1
      : arrivals.kind === 'closed'
        ? Math.min(lanes, arrivals.concurrency)
        : lanes;
    const hasStrings = Object.values(inputs).some(({ dtype }) => dtype === 'string');
    const reference =
      this.#withReference && !hasStrings
        ? async (durationMs: number): Promise<number> => {
            const shapes = Object.values(inputs).map(({ shape }) => shape);
            const bare = await this.#once(this.#loops, JSON.stringify([key, shapes, loops]), () =>
              BareLoop.make(file, options, inputs, loops),
            );
            const { runs, elapsedNs } = await bare.run(durationMs);
            return (runs * rows * 1e9) / elapsedNs;
          }
        : undefined;
    const isAlone = !reference && this.#configurations.size === 1;
    return { subject: new CallSubject(run), rows, reference, isInProcess: true, isAlone };
  }

  #once<T>(kept: Map<string, Promise<T>>, key: string, make: () => Promise<T>): Promise<T> {
    let made = kept.get(key);
    if (!made) {
      made = make();
      kept.set(key, made);
    }
    return made;
  }

  /**
   * Lets models and loops go. Where a model's memory comes to lie makes up to a tenth of its speed, and
   * stays for as long as it is loaded: so each round loads it anew, and the rounds show it.
   */
  async close(): Promise<void> {
    // What did not load has nothing to close.
    const [loops, models] = [
      await Promise.allSettled(this.#loops.values()),
      await Promise.allSettled(this.#models.values()),
    ];
    for (const loop of loops) if (loop.status === 'fulfilled') loop.value.close();
    for (const model of models) if (model.status === 'fulfilled') await model.value.close();
    this.#loops.clear();
    this.#models.clear();
  }
}
