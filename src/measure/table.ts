// Results as text: tables for a terminal and for Markdown, and CSV.
import type { BenchDocument, BenchFit, BenchPoint, BenchRound } from './bench/document.js';
import { median } from './statistics.js';

/** A number in as many digits as one reads. */
export function digits(value: number): string {
  if (!Number.isFinite(value)) return '-';
  if (value === 0) return '0';
  const size = Math.abs(value);
  if (size >= 1000) return String(Math.round(value));
  return value.toFixed(size >= 100 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : 3);
}

/** Bytes for people. */
export function bytesText(bytes: number): string {
  if (Number.isNaN(bytes)) return 'an unknown amount';
  const size = Math.abs(bytes);
  if (size >= 2 ** 30) return `${(bytes / 2 ** 30).toFixed(2)} GiB`;
  if (size >= 2 ** 20) return `${(bytes / 2 ** 20).toFixed(1)} MiB`;
  if (size >= 2 ** 10) return `${(bytes / 2 ** 10).toFixed(1)} KiB`;
  return `${bytes} B`;
}

/** Columns side by side; all but the first at the right. */
export function columns(rows: readonly (readonly string[])[]): string {
  const widths = rows[0]!.map((_, i) => Math.max(...rows.map((row) => row[i]!.length)));
  return rows
    .map((row) =>
      row
        .map((cell, i) => (i === 0 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!)))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

export function markdown(rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]): string =>
    `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`;
  const [head, ...body] = rows;
  return [
    line(head!),
    line(head!.map((_, i) => (i === 0 ? '---' : '---:'))),
    ...body.map(line),
  ].join('\n');
}

/** The overhead on the C loop: how much longer the same inferences take. */
export function overheads({ rounds, settings }: BenchPoint): number[] {
  if ('rate' in settings) return []; // it does what it is asked for, and no more
  return rounds.flatMap(({ reference, throughput }) =>
    reference === null || throughput === 0 ? [] : [reference / throughput],
  );
}

const middle = (point: BenchPoint, value: (round: BenchRound) => number): number =>
  median(point.rounds.map(value));

function range(point: BenchPoint, value: (round: BenchRound) => number): string {
  const values = point.rounds.map(value);
  return `${digits(median(values))} (${digits(Math.min(...values))}-${digits(Math.max(...values))})`;
}

function errorsOf({ rounds }: BenchPoint): number {
  return rounds.reduce(
    (sum, { errors, unanswered, unsent }) =>
      sum + Object.values(errors).reduce((all, count) => all + count, 0) + unanswered + unsent,
    0,
  );
}

/** The points as rows, the head first. */
export function pointRows({ points }: BenchDocument): string[][] {
  const hasReference = points.some((point) => overheads(point).length > 0);
  const hasCpu = points.some(({ rounds }) => rounds[0]!.cpuUsPerInference !== null);
  const rows = [
    [
      'point',
      'inferences/s',
      'p50 ms',
      'p90',
      'p99',
      'p99.9',
      'max',
      ...(hasCpu ? ['CPU us', 'peak memory'] : []),
      ...(hasReference ? ['of the C loop'] : []),
      'errors',
      'stable',
    ],
  ];
  for (const point of points) {
    const ms = (value: (round: BenchRound) => number): string =>
      digits(middle(point, value) / 1000);
    const overhead = overheads(point);
    rows.push([
      point.id,
      range(point, ({ throughput }) => throughput),
      ms(({ p50Us }) => p50Us),
      ms(({ p90Us }) => p90Us),
      ms(({ p99Us }) => p99Us),
      ms(({ p999Us }) => p999Us),
      digits(Math.max(...point.rounds.map(({ maxUs }) => maxUs)) / 1000),
      ...(hasCpu
        ? [
            digits(middle(point, ({ cpuUsPerInference }) => cpuUsPerInference ?? NaN)),
            point.peakMemoryBytes === null ? '-' : bytesText(point.peakMemoryBytes),
          ]
        : []),
      ...(hasReference ? [overhead.length > 0 ? `${median(overhead).toFixed(3)}x` : '-'] : []),
      String(errorsOf(point)),
      point.settled && point.stable
        ? 'yes'
        : point.settled
          ? 'not between rounds'
          : 'never settled',
    ]);
  }
  return rows;
}

function fitText(fit: BenchFit): string {
  const { parameters: p, medianError, worstError, predicted, checked, bestMeasured, bound } = fit;
  const setting = (s: NonNullable<BenchFit['predicted']>): string =>
    `batch ${s.batch}, threads ${s.threads}: ${digits(s.throughput)}/s, p99 ${digits(s.p99Us / 1000)} ms`;
  return [
    `${fit.model}: t = ${digits(p['a']!)} + ${digits(p['b']!)}/threads + ${p['g']!.toPrecision(3)}*batch*d + ` +
      `${p['k']!.toPrecision(3)}*batch*d/threads us`,
    `  off by ${(medianError * 100).toFixed(1)} % in the median, ${(worstError * 100).toFixed(1)} % at worst, over ${fit.points.length} points`,
    predicted
      ? `  predicted best${bound === null ? '' : ` with p99 within ${digits(bound / 1000)} ms`}: ${setting(predicted)}`
      : `  no setting keeps p99 within ${digits((bound ?? 0) / 1000)} ms`,
    ...(checked ? [`  the same measured:   ${setting(checked)}`] : []),
    ...(bestMeasured ? [`  best of the points:  ${setting(bestMeasured)}`] : []),
  ].join('\n');
}

/** What a terminal shows of a document. */
export function pointTable(document: BenchDocument): string {
  const { points, fits, partial } = document;
  const worst = points.find((point) => point.firstError !== '');
  return [
    ...(points.length > 0 ? [columns(pointRows(document))] : []),
    ...fits.map(fitText),
    ...(worst ? [`the first error: ${worst.firstError}`] : []),
    ...(partial ? ['partial: the run ended before it was complete'] : []),
  ].join('\n');
}

/** A line for each round of each point. */
export function csv({ points }: BenchDocument): string {
  const keys = [...new Set(points.flatMap(({ settings }) => Object.keys(settings)))];
  const figures = [
    'throughput',
    'p50Us',
    'p90Us',
    'p99Us',
    'p999Us',
    'maxUs',
    'meanUs',
    'cpuUsPerInference',
    'reference',
    'completed',
    'unsent',
    'unanswered',
    'startedMs',
  ] as const;
  const quote = (value: string | number | boolean | null | undefined): string => {
    const text = value === null || value === undefined ? '' : String(value);
    return /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const lines = [['model', ...keys, 'round', ...figures].join(',')];
  for (const { model, settings, rounds } of points) {
    rounds.forEach((round, i) => {
      lines.push(
        [model, ...keys.map((key) => settings[key]), i, ...figures.map((key) => round[key])]
          .map(quote)
          .join(','),
      );
    });
  }
  return lines.join('\n') + '\n';
}
