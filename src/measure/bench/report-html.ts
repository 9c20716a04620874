// The results of tercel bench as a page.
import type { BenchDocument, BenchPoint } from './document.js';
import { Histogram } from '../load/histogram.js';
import { machineLine } from '../../platform/machine.js';
import {
  chart,
  colour,
  escapeHtml,
  legend,
  page,
  place,
  sortableTable,
  type Cell,
  type Chart,
} from '../page.js';
import { median } from '../statistics.js';
import { digits, overheads, pointRows } from '../table.js';

const middle = (values: readonly number[]): number => median(values);
const throughputOf = ({ rounds }: BenchPoint): number => middle(rounds.map((r) => r.throughput));
const p99Of = ({ rounds }: BenchPoint): number => middle(rounds.map((r) => r.p99Us)) / 1000;
const p50Of = ({ rounds }: BenchPoint): number => middle(rounds.map((r) => r.p50Us)) / 1000;

/** Above each other: the part of requests that took no longer. */
function cdf(points: readonly BenchPoint[]): string {
  const curves = points.map((point) => Histogram.from(point.latency, point.maxNs).distribution());
  const all = curves.flatMap((curve) => curve.map(([ms]) => ms));
  if (all.length === 0) return '';
  // The tail by its nines: 0.9, 0.99, 0.999.
  const least = 1e-4;
  const low = Math.min(...all);
  const made: Chart = {
    width: 1100,
    height: 380,
    x: {
      low: Math.max(1e-6, low),
      high: Math.max(...all, low * 1.1),
      log: true,
      label: 'latency, ms',
      text: String,
    },
    y: {
      low: 1,
      high: 1 / least,
      log: true,
      label: 'percentile',
      text: (v) => `${Number((100 - 100 / v).toPrecision(6))}`,
    },
  };
  const at = place(made);
  const marks = curves.map((curve, i) => {
    const line = curve.map(
      ([ms, part]) => `${at.x(ms).toFixed(1)},${at.y(1 / Math.max(least, 1 - part)).toFixed(1)}`,
    );
    const { id } = points[i]!;
    return (
      `<polyline fill="none" stroke="${colour(i)}" stroke-width="2" points="${line.join(' ')}"/>` +
      [0.5, 0.9, 0.99, 0.999]
        .map((part) => {
          const hit = curve.find(([, have]) => have >= part)!;
          return `<circle r="5" cx="${at.x(hit[0])}" cy="${at.y(1 / Math.max(least, 1 - part))}" fill="${colour(i)}" data-tip="${escapeHtml(`${id}\np${part * 100}: ${digits(hit[0])} ms`)}"/>`;
        })
        .join('')
    );
  });
  return `<h2>Latency</h2>${legend(points.map(({ id }) => id))}${chart(made, marks.join(''), 'Cumulative distribution of latencies')}`;
}

function tradeOff(points: readonly BenchPoint[]): string {
  const rates = points.map(throughputOf);
  const tails = points.map(p99Of);
  const made: Chart = {
    width: 1100,
    height: 320,
    x: {
      low: 0,
      high: Math.max(...rates) * 1.05,
      log: false,
      label: 'inferences a second',
      text: digits,
    },
    y: {
      low: Math.min(...tails) * 0.8,
      high: Math.max(...tails) * 1.25,
      log: true,
      label: 'p99, ms',
      text: digits,
    },
  };
  const at = place(made);
  const marks = points.map(
    (point, i) =>
      `<circle r="7" cx="${at.x(rates[i]!)}" cy="${at.y(tails[i]!)}" fill="${colour(i)}" data-tip="${escapeHtml(
        `${point.id}\n${digits(rates[i]!)} inferences/s\np50 ${digits(p50Of(point))} ms, p99 ${digits(tails[i]!)} ms`,
      )}"/>`,
  );
  return `<h2>Throughput against latency</h2>${legend(points.map(({ id }) => id))}${chart(made, marks.join(''), 'Throughput against the 99th percentile')}`;
}

/** The two axes of the sweep that vary most, as a grid of throughput. */
function heatMap(points: readonly BenchPoint[]): string {
  const keys = [...new Set(points.flatMap(({ settings }) => Object.keys(settings)))];
  const valuesOf = (key: string): (string | number | boolean)[] => [
    ...new Set(points.map(({ settings }) => settings[key]!)),
  ];
  const varying = keys
    .map((key) => ({ key, values: valuesOf(key) }))
    .filter(({ values }) => values.length > 1)
    .sort((a, b) => b.values.length - a.values.length);
  const [x, y] = varying;
  if (!x || !y) return '';
  const size = { cell: 84, high: 34, left: 150, top: 26 };
  const best = Math.max(...points.map(throughputOf));
  const cells: string[] = [];
  y.values.forEach((row, j) => {
    x.values.forEach((column, i) => {
      // The best of what else varies.
      const here = points
        .filter(({ settings }) => settings[x.key] === column && settings[y.key] === row)
        .sort((a, b) => throughputOf(b) - throughputOf(a))[0];
      if (!here) return;
      const rate = throughputOf(here);
      const left = size.left + i * size.cell;
      const top = size.top + j * size.high;
      cells.push(
        `<g data-tip="${escapeHtml(`${here.id}\n${digits(rate)} inferences/s, p99 ${digits(p99Of(here))} ms`)}">` +
          `<rect x="${left}" y="${top}" width="${size.cell - 3}" height="${size.high - 3}" rx="3" fill="var(--c0)" fill-opacity="${(0.12 + (0.75 * rate) / best).toFixed(3)}"/>` +
          `<text x="${left + size.cell / 2}" y="${top + 20}" text-anchor="middle" style="fill:var(--front)">${digits(rate)}</text></g>`,
      );
    });
  });
  const labels = [
    ...x.values.map(
      (value, i) =>
        `<text x="${size.left + i * size.cell + size.cell / 2}" y="18" text-anchor="middle">${escapeHtml(`${x.key} ${String(value)}`)}</text>`,
    ),
    ...y.values.map(
      (value, j) =>
        `<text x="${size.left - 8}" y="${size.top + j * size.high + 20}" text-anchor="end">${escapeHtml(`${y.key} ${String(value)}`)}</text>`,
    ),
  ];
  const width = Math.max(600, size.left + x.values.length * size.cell + 8);
  const height = size.top + y.values.length * size.high + 6;
  return `<h2>Sweep: inferences a second</h2><svg style="max-width:${width}px" viewBox="0 0 ${width} ${height}" role="img" aria-label="Heat map of the sweep">${cells.join('')}${labels.join('')}</svg>`;
}

function fits(document: BenchDocument): string {
  if (document.fits.length === 0) return '';
  const rows = document.fits.flatMap((fit) =>
    fit.points.map(({ d, batch, threads, measuredUs, fittedUs }): (Cell | string)[] => [
      fit.model,
      { text: String(d), value: d },
      { text: String(batch), value: batch },
      { text: String(threads), value: threads },
      { text: digits(measuredUs), value: measuredUs },
      { text: digits(fittedUs), value: fittedUs },
      {
        text: `${((fittedUs / measuredUs - 1) * 100).toFixed(1)} %`,
        value: fittedUs / measuredUs - 1,
      },
    ]),
  );
  return `<h2>Cost model</h2><p>t = ${escapeHtml(document.fits[0]!.formula)}, in microseconds</p>${sortableTable(
    ['model', 'd', 'batch', 'threads', 'measured us', 'fitted us', 'residual'],
    rows,
  )}`;
}

/** One self-contained HTML file. */
export function benchHtml(document: BenchDocument): string {
  const { points, label, partial, created, command } = document;
  // Nothing is drawn of what was never answered.
  const answered = points.filter((point) => point.maxNs > 0 && throughputOf(point) > 0);
  const [head, ...rows] = pointRows(document);
  const cells = rows.map((row, i) => {
    const point = points[i]!;
    const sorted: Record<string, number> = {
      'inferences/s': throughputOf(point),
      'peak memory': point.peakMemoryBytes ?? 0,
      'of the C loop': median(overheads(point)),
    };
    return row.map((text, j): Cell => ({ text, value: sorted[head![j]!] }));
  });
  const body = [
    ...(partial ? ['<p><strong>Partial: the run ended before it was complete.</strong></p>'] : []),
    `<p>${escapeHtml(`${created} · tercel ${command.join(' ')}`)}</p>`,
    '<h2>Points</h2><p>Medians of the rounds, and their range.</p>',
    sortableTable(head!, cells),
    ...(answered.length > 0 ? [cdf(answered), tradeOff(answered), heatMap(answered)] : []),
    fits(document),
  ];
  return page(label || 'tercel bench', machineLine(document.machine), body.join('\n'));
}
