// Two or more documents side by side: what differs, and whether that can be told from noise.
//
// A machine is not equally fast all the time, and two runs minutes apart differ by more than what is
// between their rounds. Where both have the bare C loop beside each point, on the same machine, figures
// are compared in units of it: what the machine did to one it did to the other.
import { InvalidInputError } from '../../errors.js';
import type { BenchDocument, BenchPoint, BenchRound } from './document.js';
import { bootstrapRatio, median, type Interval } from '../statistics.js';

export interface CompareOptions {
  /** Smaller differences do not count, however sure they are. */
  readonly margin: number;
  readonly confidence: number;
}

export const compareDefaults: CompareOptions = { margin: 0.03, confidence: 0.99 };

const LEAST_ROUNDS = 3;

export type Verdict = 'no difference' | 'better' | 'worse';

export interface Comparison {
  id: string;
  metric: string;
  /** Medians of the documents, in the metric's unit. */
  values: number[];
  /** Of each but the first to the first. */
  ratios: Interval[];
  verdicts: Verdict[];
  /** Whether in units of the C loop. */
  relative: boolean;
}

interface Metric {
  name: string;
  of: (round: BenchRound) => number;
  /** Whether more is better. */
  moreIsBetter: boolean;
  /** The value in units of what the C loop took or did meanwhile. */
  relative: (value: number, reference: number) => number;
}

const byTime = (value: number, reference: number): number => value * reference;
const metrics: readonly Metric[] = [
  {
    name: 'inferences/s',
    of: ({ throughput }) => throughput,
    moreIsBetter: true,
    relative: (value, reference) => value / reference,
  },
  { name: 'p50 ms', of: ({ p50Us }) => p50Us / 1000, moreIsBetter: false, relative: byTime },
  {
    name: 'answered',
    of: ({ completed, errors, unsent, unanswered }) => {
      const bad =
        Object.values(errors).reduce((sum, count) => sum + count, 0) + unsent + unanswered;
      return completed + bad > 0 ? completed / (completed + bad) : 0;
    },
    moreIsBetter: true,
    relative: (value) => value,
  },
  { name: 'p99 ms', of: ({ p99Us }) => p99Us / 1000, moreIsBetter: false, relative: byTime },
];

function keyOf({ model, settings }: BenchPoint): string {
  return JSON.stringify([model, Object.entries(settings).sort(([a], [b]) => (a < b ? -1 : 1))]);
}

/** An open loop's throughput is what it was asked for. */
function concerns(metric: Metric, { settings }: BenchPoint): boolean {
  return !(metric.name === 'inferences/s' && 'rate' in settings);
}

/** A value for each process that there was, where there were several: its rounds are not independent. */
function byLaunch(rounds: readonly BenchRound[], of: (round: BenchRound) => number): number[] {
  const launches = new Map<number, number[]>();
  for (const round of rounds) {
    const list = launches.get(round.launch ?? 0);
    if (list) list.push(of(round));
    else launches.set(round.launch ?? 0, [of(round)]);
  }
  const groups = [...launches.values()];
  return groups.length < LEAST_ROUNDS
    ? groups.flat()
    : groups.map((values) => values.reduce((sum, value) => sum + value, 0) / values.length);
}

/**
 * Compares documents with the first.
 *
 * @throws InvalidInputError where they have no point in common
 */
export function compareDocuments(
  documents: readonly BenchDocument[],
  { margin, confidence }: CompareOptions = compareDefaults,
): { rows: Comparison[]; missing: string[] } {
  const [first, ...others] = documents;
  if (!first || others.length === 0) throw new InvalidInputError('compare: two results are needed');
  const rows: Comparison[] = [];
  const missing: string[] = [];
  for (const point of first.points) {
    const key = keyOf(point);
    const twins = others.map(({ points }) => points.find((candidate) => keyOf(candidate) === key));
    if (twins.some((twin) => !twin)) {
      missing.push(point.id);
      continue;
    }
    const all = [point, ...(twins as BenchPoint[])];
    const relative =
      others.every(({ machine }) => machine.id === first.machine.id) &&
      all.every(({ rounds }) => rounds.every(({ reference }) => reference !== null));
    for (const metric of metrics) {
      if (!concerns(metric, point)) continue;
      // A round without an answer has no latency.
      const isLatency = metric.name.endsWith(' ms');
      const counted = all.map(({ rounds }) => rounds.filter((r) => !isLatency || r.completed > 0));
      const figures = counted.map((rounds) => byLaunch(rounds, metric.of));
      if (figures.some((values) => values.length === 0 || median(values) === 0)) {
        throw new InvalidInputError(
          `${point.id}: nothing was answered, so there is nothing to compare`,
        );
      }
      if (metric.name === 'answered' && figures.flat().every((value) => value === 1)) continue;
      const compared = relative
        ? counted.map((rounds) =>
            byLaunch(rounds, (round) => metric.relative(metric.of(round), round.reference!)),
          )
        : figures;
      const ratios = compared
        .slice(1)
        .map((values) => bootstrapRatio(compared[0]!, values, confidence));
      rows.push({
        id: point.id,
        metric: metric.name,
        values: figures.map((values) => median(values)),
        ratios,
        // Of one or two rounds nobody knows how much they vary.
        verdicts: ratios.map((ratio, i) =>
          Math.min(compared[0]!.length, compared[i + 1]!.length) < LEAST_ROUNDS
            ? 'no difference'
            : judge(ratio, metric.moreIsBetter, margin),
        ),
        relative,
      });
    }
  }
  if (rows.length === 0) {
    throw new InvalidInputError(
      'the results have no point in common: the same models with the same settings can be compared',
    );
  }
  return { rows, missing };
}

function judge({ value, low, high }: Interval, moreIsBetter: boolean, margin: number): Verdict {
  const differs = (low > 1 || high < 1) && Math.abs(value - 1) > margin;
  if (!differs) return 'no difference';
  return value > 1 === moreIsBetter ? 'better' : 'worse';
}

/** By how much the worst of them is worse, as a part; 0 where nothing is. */
export function worstLoss(rows: readonly Comparison[]): number {
  let worst = 0;
  for (const { ratios, verdicts, metric } of rows) {
    ratios.forEach(({ value }, i) => {
      if (verdicts[i] !== 'worse') return;
      const loss = metric.endsWith(' ms') ? value - 1 : 1 - value;
      worst = Math.max(worst, loss);
    });
  }
  return worst;
}
