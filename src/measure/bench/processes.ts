// A run in several processes, one after the other.
//
// Where a process's stack, heap and libraries come to lie makes some per cent of its speed, and stays for as
// long as it lives (T. Mytkowicz et al., "Producing wrong data without doing anything obviously wrong!",
// 2009): two runs of the same program differ by that, however many rounds each has. So the rounds are divided
// among processes, and how these differ is part of the result.
import { fork } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { ModelError } from '../../errors.js';
import type { BenchOutcome, BenchPlan } from './plan.js';
import type { BenchDocument, BenchPoint } from './document.js';
import { Histogram } from '../load/histogram.js';
import { areSteady, type Progress } from './runner.js';

/** Later processes know that there is nothing to wait for. */
const LATER_WARM_UP_MS = 600;

/** What a process is told. */
export type ToLaunch = { plan: BenchPlan } | { abort: true };
/** What it tells. */
export type FromLaunch =
  | { progress: { id: string; phase: Progress['phase']; round?: Progress['round'] } }
  | { document: BenchDocument; failure: string | undefined }
  | { error: string };

const program = fileURLToPath(
  new URL(`./process${path.extname(fileURLToPath(import.meta.url))}`, import.meta.url),
);

async function launch(
  plan: BenchPlan,
  signal: AbortSignal,
  onProgress: (progress: Extract<FromLaunch, { progress: object }>['progress']) => void,
): Promise<BenchOutcome> {
  const child = fork(program, { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
  const onAbort = (): void => {
    if (child.connected) child.send({ abort: true } satisfies ToLaunch);
  };
  signal.addEventListener('abort', onAbort, { once: true });
  let outcome: BenchOutcome | undefined;
  let error: string | undefined;
  child.on('message', (message: FromLaunch) => {
    if ('progress' in message) onProgress(message.progress);
    else if ('error' in message) error = message.error;
    else {
      const failure = message.failure === undefined ? undefined : new ModelError(message.failure);
      outcome = { document: message.document, failure };
    }
  });
  child.send({ plan } satisfies ToLaunch);
  const [code, killer] = (await once(child, 'close')) as [number | null, string | null];
  signal.removeEventListener('abort', onAbort);
  if (outcome) return outcome;
  throw new ModelError(
    error ?? `the process that measured ended (${killer ?? `exit code ${code}`})`,
  );
}

function merge(all: BenchPoint[], stability: number): BenchPoint {
  const latency = new Histogram();
  for (const point of all) latency.add(Histogram.from(point.latency, point.maxNs));
  const rounds = all.flatMap((point, i) => point.rounds.map((round) => ({ ...round, launch: i })));
  const peaks = all.map(({ peakMemoryBytes }) => peakMemoryBytes).filter((peak) => peak !== null);
  return {
    ...all[0]!,
    rounds,
    latency: latency.toJSON(),
    maxNs: latency.maxNs,
    peakMemoryBytes: peaks.length > 0 ? Math.max(...peaks) : null,
    settled: all.some(({ settled }) => settled),
    stable: rounds.length > 1 && areSteady(rounds, 'rate' in all[0]!.settings, stability),
    firstError: all.find(({ firstError }) => firstError !== '')?.firstError ?? '',
  };
}

/**
 * Measures a plan in `plan.run.launches` processes, which share its rounds.
 *
 * @throws (rejects) ModelError when nothing could be measured
 */
export async function runLaunches(
  plan: BenchPlan,
  signal: AbortSignal,
  onProgress: (progress: Progress) => void,
): Promise<BenchOutcome> {
  const { launches, rounds, warmUpMs } = plan.run;
  const each = Math.ceil(rounds / launches);
  const began = performance.now();
  const documents: BenchDocument[] = [];
  let failure: Error | undefined;
  let done = 0;
  for (let i = 0; i < launches && !signal.aborted && !failure; i++) {
    const warm = i === 0 ? warmUpMs : Math.min(warmUpMs, LATER_WARM_UP_MS);
    const run = { ...plan.run, launches: 1, rounds: each, warmUpMs: warm, mayExtend: false };
    const startedMs = performance.now() - began;
    try {
      const outcome = await launch({ ...plan, run }, signal, ({ id, phase, round }) => {
        if (phase === 'measure') done++;
        const points = documents[0]?.points.length ?? 1;
        onProgress({
          point: { id },
          phase,
          done,
          of: points * each * launches,
          ...(round && { round }),
        });
      });
      failure = outcome.failure;
      for (const point of outcome.document.points) {
        for (const round of point.rounds) round.startedMs += startedMs;
      }
      documents.push(outcome.document);
    } catch (error) {
      if (documents.length === 0) throw error;
      if (!signal.aborted) failure = error as Error;
    }
  }
  const [first] = documents;
  if (!first) throw new ModelError('nothing was measured');
  const points = first.points.map(({ id }) =>
    merge(
      documents.flatMap((document) => document.points.filter((point) => point.id === id)),
      plan.run.stability,
    ),
  );
  const isWhole = documents.length === launches && documents.every(({ partial }) => !partial);
  return {
    document: {
      ...first,
      points,
      partial: !isWhole,
      run: { ...first.run, rounds, launches, warmUpMs },
    },
    failure,
  };
}
