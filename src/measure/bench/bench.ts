// A whole run of `tercel bench`: the points of a sweep, measured, as one document.
import { access } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { InvalidInputError } from '../../errors.js';
import type { ModelOptions } from '../../types/model-options.js';
import { defaultLanes } from '../../runtime/scheduling.js';
import { startRuntime } from '../../runtime/runtime.js';
import type { BenchDocument } from './document.js';
import { fitModels } from './fit.js';
import {
  calls,
  fingerprint,
  ModelBench,
  modelName,
  variantOf,
  type ModelPoint,
} from './in-process.js';
import { makeInputs, rowsOf } from '../load/inputs.js';
import type { Arrivals } from '../load/load.js';
import type { BenchOutcome, BenchPlan } from './plan.js';
import { runLaunches } from './processes.js';
import { describeMachine } from '../../platform/machine.js';
import { product } from './sweep.js';
import {
  runPoints,
  type PointPlan,
  type Progress,
  type RunOptions,
  type RunOutcome,
} from './runner.js';
import { describeInputs } from '../load/describe.js';
import { serverSubject } from '../load/subject.js';
import { type ServerOptions } from '../load/servers.js';

export { calls };

function arrivalSettings(arrivals: Arrivals): Record<string, string | number> {
  return arrivals.kind === 'closed'
    ? { concurrency: arrivals.concurrency }
    : { rate: arrivals.rate, arrivals: arrivals.kind };
}

/** What inputs there are, where that was said: other sizes are other points. */
function inputSettings({ inputs }: BenchPlan): Record<string, string> {
  const said = [
    ...Object.entries(inputs.dimensions ?? {}).map(([name, size]) => `${name}=${size}`),
    ...Object.entries(inputs.shapes ?? {}).map(([name, shape]) => `${name}=${shape.join('x')}`),
    ...Object.entries(inputs.files ?? {}).map(([name, file]) => `${name}=${path.basename(file)}`),
  ];
  return said.length > 0 ? { inputs: said.join(' ') } : {};
}

/** Names of files, told apart by their paths where they are the same. */
function namesOf(files: readonly string[]): Map<string, string> {
  const names = files.map((file) => modelName(file));
  return new Map(
    files.map((file, i) => {
      const isShared = names.some((name, k) => name === names[i] && files[k] !== file);
      return [file, isShared ? `${names[i]} (${file})` : names[i]!];
    }),
  );
}

/** "mlp batch 8 concurrency 64": what is not the same for all points. */
function name(points: { model: string; settings: PointPlan['settings'] }[]): string[] {
  const varies = (key: string): boolean =>
    new Set(points.map(({ settings }) => settings[key])).size > 1;
  return points.map(({ model, settings }) =>
    [
      model,
      ...Object.entries(settings)
        .filter(([key]) => varies(key) || key === 'concurrency' || key === 'rate')
        .map(([key, value]) => `${key} ${String(value)}`),
    ].join(' '),
  );
}

function modelPoints(plan: BenchPlan): ModelPoint[] {
  const cores = os.availableParallelism();
  const names = namesOf(plan.models);
  const points = product({
    file: plan.models,
    precision: plan.precisions ?? ['as-is'],
    provider: plan.providers ?? [['cpu']],
    threads: plan.threads ?? [1],
    lanes: plan.lanes ?? [undefined],
    spinning: plan.spinning,
    call: plan.calls,
    batch: plan.batch ?? [1],
    arrivals: plan.arrivals,
  }).map(({ file, precision, provider, threads, lanes, spinning, call, batch, arrivals }) => {
    if (call !== 'run' && !(arrivals.kind === 'closed' && arrivals.concurrency === 1)) {
      throw new InvalidInputError(`--call ${call} has one request at a time: --concurrency 1`);
    }
    const options: ModelOptions = {
      threads,
      lanes: lanes ?? defaultLanes(threads || cores, false),
      spinning,
      ...(plan.providers && { providers: [...provider] }),
    };
    return {
      file: precision === 'as-is' ? file : variantOf(file, precision),
      name: names.get(file)!,
      options,
      arrivals,
      call,
      inputs: { ...plan.inputs, batch, seed: plan.run.seed },
      settings: {
        ...(plan.precisions && { precision }),
        ...(plan.providers && { provider: provider.join('+') }),
        threads,
        ...(plan.lanes && { lanes: options.lanes! }),
        spinning,
        call,
        batch,
        ...inputSettings(plan),
        ...arrivalSettings(arrivals),
      },
      id: '',
    };
  });
  const ids = name(points.map((point) => ({ model: point.name, settings: point.settings })));
  return points.map((point, i) => ({ ...point, id: ids[i]! }));
}

async function serverPoints(plan: BenchPlan): Promise<PointPlan[]> {
  const { url: text, ...server } = plan.server!;
  let url: URL;
  try {
    url = new URL(text);
  } catch (cause) {
    throw new InvalidInputError(
      `--url: expected a URL such as http://127.0.0.1:8000, got "${text}"`,
      { cause },
    );
  }
  const points: PointPlan[] = [];
  for (const model of plan.models) {
    const options: ServerOptions = { ...server, url, model };
    const specs = await describeInputs(options);
    for (const { batch, arrivals } of product({
      batch: plan.batch ?? [1],
      arrivals: plan.arrivals,
    })) {
      const inputs = await makeInputs(specs, { ...plan.inputs, batch, seed: plan.run.seed });
      const rows = rowsOf(specs, inputs, batch);
      const subject = serverSubject(options, inputs);
      points.push({
        id: '',
        model,
        settings: { batch, ...inputSettings(plan), ...arrivalSettings(arrivals) },
        arrivals,
        open: () => Promise.resolve({ subject, rows, isInProcess: false, isAlone: false }),
      });
    }
  }
  const ids = name([...points]);
  return points.map((point, i) => ({ ...point, id: ids[i]! }));
}

/** What cannot go together is refused rather than ignored. */
function checkPlan(plan: BenchPlan): void {
  const { server, fit, maxP99Ms, dimensionLists } = plan;
  const isSet = {
    '--threads': plan.threads !== undefined,
    '--lanes': plan.lanes !== undefined,
    '--provider': plan.providers !== undefined,
    '--precision': plan.precisions !== undefined,
    '--spinning': plan.spinning.includes(true),
    '--call': plan.calls.some((call) => call !== 'run'),
    '--concurrency or --rate': plan.arrivals.some((a) => a.kind !== 'closed' || a.concurrency > 1),
    '--fit': fit,
  };
  const refuse = (names: readonly (keyof typeof isSet)[], why: string): void => {
    for (const name of names) if (isSet[name]) throw new InvalidInputError(`${name} ${why}`);
  };
  if (server) {
    refuse(
      ['--threads', '--lanes', '--provider', '--precision', '--spinning', '--call', '--fit'],
      'is for models in this process: not with --url',
    );
  }
  if (fit) {
    refuse(
      ['--lanes', '--precision', '--call', '--concurrency or --rate'],
      'cannot be chosen with --fit, which runs as many side by side as there are processors',
    );
  } else {
    if (maxP99Ms !== undefined) throw new InvalidInputError('--max-p99 is for --fit');
    for (const [name, sizes] of Object.entries(dimensionLists)) {
      if (sizes.length > 1) {
        throw new InvalidInputError(`--dim ${name}: several sizes are for --fit`);
      }
    }
  }
}

/** Says which model's file it was that could not be read. */
function unreadable(file: string): (cause: Error) => never {
  return (cause) => {
    throw new InvalidInputError(`cannot read model "${file}": ${cause.message}`, { cause });
  };
}

/**
 * Measures all points of a plan.
 *
 * @param signal ends it; what was measured by then is returned
 * @throws (rejects) ModelError, InvalidInputError, RunError when nothing could be measured
 */
export async function runBench(
  plan: BenchPlan,
  signal: AbortSignal,
  onProgress: (progress: Progress) => void = () => {},
): Promise<BenchOutcome> {
  const { server } = plan;
  checkPlan(plan);
  // A server is what it is, however often we are launched.
  if (!server && !plan.fit && plan.run.launches > 1) {
    for (const file of plan.models) await access(file).catch(unreadable(file));
    return runLaunches(plan, signal, onProgress);
  }
  const bench = new ModelBench(plan.withReference);
  const options: RunOptions = { ...plan.run, signal, onProgress, onRound: () => bench.close() };
  let outcome: RunOutcome;
  let fits: BenchDocument['fits'] = [];
  let plans: PointPlan[] = [];
  const models: BenchDocument['models'] = [];
  try {
    if (server) {
      for (const model of plan.models) {
        models.push({ name: model, source: `${server.url} ${model}`, bytes: null, sha256: null });
      }
      plans = await serverPoints(plan);
      outcome = await runPoints(plans, options);
    } else {
      startRuntime();
      const points = modelPoints(plan);
      for (const { file, name: model } of points) {
        if (models.some(({ source }) => source === file)) continue;
        const found = await fingerprint(file).catch(unreadable(file));
        models.push({ name: model, source: file, ...found });
      }
      if (plan.fit) {
        const fitted = await fitModels(plan, bench, options);
        outcome = fitted.outcome;
        fits = fitted.fits;
      } else {
        plans = points.map((point) => bench.plan(point));
        outcome = await runPoints(plans, options);
      }
    }
  } finally {
    if (server) for (const one of plans) await (await one.open(0)).subject.close();
    await bench.close();
  }
  return {
    document: {
      format: 'tercel-bench',
      version: 1,
      created: new Date().toISOString(),
      label: plan.label,
      command: [...plan.command],
      partial: outcome.partial,
      machine: describeMachine(),
      target: {
        kind: server ? 'server' : 'in-process',
        url: server?.url ?? null,
        protocol: server?.protocol ?? null,
      },
      models,
      run: {
        durationMs: plan.run.durationMs,
        rounds: plan.run.rounds,
        launches: 1,
        stability: plan.run.stability,
        warmUpMs: plan.run.warmUpMs,
        seed: plan.run.seed,
      },
      points: outcome.points,
      fits,
    },
    failure: outcome.failure,
  };
}
