// The cost model: response time t = f(d, p, c, h), in the size of the input d, the parameters p, the
// compute given c and the hardware h.
//
// For one model on one machine p and h are constants that a fit finds. A run has a part that comes once
// (reading the weights, calling operators) and a part that grows with the input, and of each a part that
// more threads share (Amdahl):
//
//   t(n, c) = a + b/c + g*n + k*n/c      n = rows * d, c = threads
//
// with all four of 0 or more, by least squares of relative errors. It is measured with as many runs side
// by side as the processors allow, as a server under load has them.
import os from 'node:os';
import { loadModel } from '../../catalog/loader.js';
import { countElements } from '../../tensor.js';
import type { BenchPlan } from './plan.js';
import type { BenchFit, BenchPoint } from './document.js';
import { modelName, type ModelBench } from './in-process.js';
import { makeInputs } from '../load/inputs.js';
import { product } from './sweep.js';
import { runPoints, type PointPlan, type RunOptions, type RunOutcome } from './runner.js';
import { median } from '../statistics.js';

const BATCHES = [1, 2, 4, 8, 16, 32];
const FORMULA = 'a + b/threads + g*batch*d + k*batch*d/threads';
const PARAMETERS = ['a', 'b', 'g', 'k'] as const;

export interface Sample {
  /** Elements of one row of all inputs. */
  d: number;
  batch: number;
  threads: number;
  us: number;
}

export interface CostModel {
  parameters: Record<(typeof PARAMETERS)[number], number>;
  predict(at: Pick<Sample, 'd' | 'batch' | 'threads'>): number;
}

function terms({ d, batch, threads }: Pick<Sample, 'd' | 'batch' | 'threads'>): number[] {
  const n = batch * d;
  return [1, 1 / threads, n, n / threads];
}

/** Solves a small system of equations by elimination; undefined where it is singular. */
function solve(matrix: number[][], right: number[]): number[] | undefined {
  const size = right.length;
  const rows = matrix.map((row, i) => [...row, right[i]!]);
  for (let column = 0; column < size; column++) {
    const pivot = rows
      .slice(column)
      .reduce(
        (best, row, i) =>
          Math.abs(row[column]!) > Math.abs(rows[best]![column]!) ? column + i : best,
        column,
      );
    [rows[column], rows[pivot]] = [rows[pivot]!, rows[column]!];
    const divisor = rows[column]![column]!;
    if (Math.abs(divisor) < 1e-12) return undefined;
    for (let other = 0; other < size; other++) {
      if (other === column) continue;
      const factor = rows[other]![column]! / divisor;
      for (let k = column; k <= size; k++) rows[other]![k]! -= factor * rows[column]![k]!;
    }
  }
  return rows.map((row, i) => row[size]! / row[i]!);
}

/**
 * Fits the cost model. With four parameters, every choice of those that are not 0 can be tried.
 *
 * @param samples microseconds; at least one
 */
export function fitCost(samples: readonly Sample[]): CostModel {
  // Relative errors: each row is divided by what was measured. Columns are scaled to be alike.
  const rows = samples.map((sample) => terms(sample).map((term) => term / sample.us));
  const scale = PARAMETERS.map((_, j) => Math.max(...rows.map((row) => row[j]!)) || 1);
  const scaled = rows.map((row) => row.map((value, j) => value / scale[j]!));
  let best = { error: Infinity, values: [0, 0, 0, 0] };
  for (let choice = 1; choice < 16; choice++) {
    const used = PARAMETERS.map((_, j) => j).filter((j) => choice & (1 << j));
    const matrix = used.map((i) =>
      used.map((j) => scaled.reduce((sum, row) => sum + row[i]! * row[j]!, 0)),
    );
    const right = used.map((i) => scaled.reduce((sum, row) => sum + row[i]!, 0));
    const found = solve(matrix, right);
    if (!found || found.some((value) => value < 0)) continue;
    const values = [0, 0, 0, 0];
    used.forEach((j, k) => (values[j] = found[k]! / scale[j]!));
    const error = rows.reduce(
      (sum, row) => sum + (row.reduce((fit, term, j) => fit + term * values[j]!, 0) - 1) ** 2,
      0,
    );
    // Fewer parameters where more gain nothing.
    if (error < best.error * 0.999) best = { error, values };
  }
  const [a, b, g, k] = best.values as [number, number, number, number];
  return {
    parameters: { a, b, g, k },
    predict: (at) => terms(at).reduce((sum, term, j) => sum + term * best.values[j]!, 0),
  };
}

interface Setting {
  batch: number;
  threads: number;
}

/** The batch and threads with the highest throughput inside the bound, by the model. */
export function bestSetting(
  model: CostModel,
  d: number,
  settings: readonly Setting[],
  lanesOf: (threads: number) => number,
  tail: number,
  maxP99Us: number,
): (Setting & { p99Us: number; throughput: number }) | undefined {
  let best: (Setting & { p99Us: number; throughput: number }) | undefined;
  for (const setting of settings) {
    const us = model.predict({ d, ...setting });
    const found = {
      ...setting,
      p99Us: us * tail,
      throughput: (lanesOf(setting.threads) * setting.batch * 1e6) / us,
    };
    if (found.p99Us <= maxP99Us && (!best || found.throughput > best.throughput)) best = found;
  }
  return best;
}

const lanesOf = (threads: number): number =>
  Math.max(1, Math.floor(os.availableParallelism() / threads));

/** Measures each model of the plan over input size, batch and threads, fits, predicts, and checks. */
export async function fitModels(
  plan: BenchPlan,
  bench: ModelBench,
  options: RunOptions,
): Promise<{ outcome: RunOutcome; fits: BenchFit[] }> {
  const cores = os.availableParallelism();
  const batches = plan.batch ?? BATCHES;
  const threads = plan.threads ?? [1, 2, 4, 8, 16, 32, 64].filter((count) => count <= cores);
  const points: BenchPoint[] = [];
  const fits: BenchFit[] = [];
  const fitOne = async (file: string): Promise<RunOutcome | undefined> => {
    const name = modelName(file);
    const probe = await loadModel(file);
    const specs = probe.inputs;
    await probe.close();
    const choices = { ...plan.inputs, seed: plan.run.seed };
    const grid: { plan: PointPlan; d: number; batch: number; threads: number }[] = [];
    const planFor = async (batch: number, count: number, dimensions: Record<string, number>) => {
      const inputs = await makeInputs(specs, { ...choices, batch: 1, dimensions });
      const d = Object.values(inputs).reduce((sum, { shape }) => sum + countElements(shape), 0);
      const lanes = lanesOf(count);
      const made = bench.plan({
        file,
        name,
        options: {
          threads: count,
          lanes,
          spinning: plan.spinning.includes(true),
          ...(plan.providers && { providers: [...plan.providers[0]!] }),
        },
        arrivals: { kind: 'closed', concurrency: lanes },
        call: 'run',
        inputs: { ...choices, batch, dimensions },
        settings: { d, batch, threads: count, lanes, concurrency: lanes },
        id: `${name} d ${d} batch ${batch} threads ${count}`,
      });
      return { plan: made, d, batch, threads: count };
    };
    for (const dimensions of product(plan.dimensionLists)) {
      for (const batch of batches) {
        for (const count of threads) grid.push(await planFor(batch, count, dimensions));
      }
    }
    const outcome = await runPoints(
      grid.map((one) => one.plan),
      options,
    );
    points.push(...outcome.points);
    if (outcome.partial) return outcome;

    const samples: Sample[] = outcome.points.map((point, i) => ({
      ...grid[i]!,
      us: median(point.rounds.map(({ p50Us }) => p50Us)),
    }));
    const model = fitCost(samples);
    const errors = samples.map((sample) => Math.abs(model.predict(sample) / sample.us - 1));
    const tail = median(
      outcome.points.flatMap(({ rounds }) => rounds.map(({ p99Us, p50Us }) => p99Us / p50Us)),
    );
    const maxP99Us = plan.maxP99Ms === undefined ? Infinity : plan.maxP99Ms * 1000;
    // Between what was measured, not beyond it.
    const settings: Setting[] = [];
    for (let batch = Math.min(...batches); batch <= Math.max(...batches); batch++) {
      for (const count of threads) settings.push({ batch, threads: count });
    }
    const first = grid[0]!;
    const predicted = bestSetting(model, first.d, settings, lanesOf, tail, maxP99Us);
    let checked: BenchFit['checked'] = null;
    if (predicted) {
      const dimensions = product(plan.dimensionLists)[0]!;
      const check = await planFor(predicted.batch, predicted.threads, dimensions);
      const again = await runPoints([check.plan], options);
      if (again.failure) throw again.failure;
      if (again.points.length > 0) {
        const { rounds } = again.points[0]!;
        checked = {
          batch: predicted.batch,
          threads: predicted.threads,
          p99Us: median(rounds.map(({ p99Us }) => p99Us)),
          throughput: median(rounds.map(({ throughput }) => throughput)),
        };
      }
    }
    let bestMeasured: BenchFit['bestMeasured'] = null;
    outcome.points.forEach(({ rounds }, i) => {
      const { batch, threads: count, d } = grid[i]!;
      const p99Us = median(rounds.map((round) => round.p99Us));
      const throughput = median(rounds.map((round) => round.throughput));
      if (d !== first.d || p99Us > maxP99Us || throughput <= (bestMeasured?.throughput ?? 0))
        return;
      bestMeasured = { batch, threads: count, p99Us, throughput };
    });
    fits.push({
      model: name,
      formula: FORMULA,
      parameters: model.parameters,
      points: samples.map((sample) => ({
        d: sample.d,
        batch: sample.batch,
        threads: sample.threads,
        measuredUs: sample.us,
        fittedUs: model.predict(sample),
      })),
      medianError: median(errors),
      worstError: Math.max(...errors),
      bound: plan.maxP99Ms === undefined ? null : maxP99Us,
      predicted: predicted ?? null,
      checked,
      bestMeasured,
    });
    return undefined;
  };
  for (const file of plan.models) {
    try {
      const ended = await fitOne(file);
      if (ended) return { outcome: { ...ended, points }, fits };
    } catch (error) {
      // What was measured of the models before is kept.
      if (points.length === 0) throw error;
      return { outcome: { points, partial: true, failure: error as Error }, fits };
    }
  }
  return { outcome: { points, partial: options.signal.aborted, failure: undefined }, fits };
}
