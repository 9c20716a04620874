// A profile as a page: operators as an icicle, memory over time, tables that sort.
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
import { byKind, roofOf, type Profile } from './profile.js';
import { accountRows, arenaLine } from './profile-text.js';
import { bytesText, digits } from '../table.js';

const percent = (part: number): string => `${(part * 100).toFixed(1)} %`;

/** Run, kinds of operators, nodes: each as wide as it takes long. */
function icicle({ time }: Profile): string {
  const width = 1100;
  const row = 34;
  const { runUs, operators, betweenUs } = time;
  const scale = width / Math.max(runUs, time.operatorsUs);
  const box = (
    x: number,
    y: number,
    us: number,
    fill: string,
    text: string,
    tip: string,
  ): string => {
    const w = us * scale;
    if (w < 0.3) return '';
    const label =
      w > text.length * 7 + 8
        ? `<text x="${x + 5}" y="${y + 21}" style="fill:var(--back)">${escapeHtml(text)}</text>`
        : '';
    return `<g data-tip="${escapeHtml(tip)}"><rect x="${x}" y="${y}" width="${Math.max(0.3, w - 1)}" height="${row - 2}" rx="2" fill="${fill}"/>${label}</g>`;
  };
  const parts = [
    box(0, 0, runUs, 'var(--soft)', `run ${digits(runUs)} us`, `a run\n${digits(runUs)} us`),
  ];
  let x = 0;
  byKind(operators).forEach(({ operator, us, share, count }, i) => {
    parts.push(
      box(
        x,
        row,
        us,
        colour(i),
        operator,
        `${operator}: ${count} nodes\n${digits(us)} us, ${percent(share)}`,
      ),
    );
    let inner = x;
    for (const node of operators
      .filter((one) => one.operator === operator)
      .sort((a, b) => b.us - a.us)) {
      parts.push(
        box(
          inner,
          2 * row,
          node.us,
          colour(i),
          node.name,
          `${node.name} (${operator})\n${digits(node.us)} us, ${percent(node.share)}\n${node.outputShape}`,
        ),
      );
      inner += node.us * scale;
    }
    x += us * scale;
  });
  parts.push(
    box(
      x,
      row,
      Math.max(0, betweenUs),
      'var(--line)',
      'between',
      `between operators\n${digits(betweenUs)} us`,
    ),
  );
  return `<h2>Where a run's time goes</h2><svg viewBox="0 0 ${width} ${3 * row}" role="img" aria-label="Operators by time">${parts.join('')}</svg>`;
}

function memoryChart({ memory }: Profile): string {
  const { timeline, marks, peak } = memory.allocations;
  const last = timeline.at(-1);
  if (!last || peak.bytes === 0) return '';
  const made: Chart = {
    width: 1100,
    height: 300,
    x: { low: 0, high: last[0] || 1, log: false, label: 'ms since the load began', text: digits },
    y: { low: 0, high: peak.bytes * 1.1, log: false, label: 'alive', text: bytesText },
  };
  const at = place(made);
  // Steps: what is alive stays so until the next event.
  const line = timeline.flatMap(([ms, bytes], i) => {
    const before = timeline[i - 1]?.[1] ?? bytes;
    return [
      `${at.x(ms).toFixed(1)},${at.y(before).toFixed(1)}`,
      `${at.x(ms).toFixed(1)},${at.y(bytes).toFixed(1)}`,
    ];
  });
  const bottom = at.y(0);
  const phases = marks
    .filter(({ ms }) => ms <= last[0])
    .map(
      ({ name, ms }) =>
        `<line class="axis" stroke-dasharray="4 3" style="stroke:var(--soft)" x1="${at.x(ms)}" x2="${at.x(ms)}" y1="12" y2="${bottom}"/>` +
        `<text x="${at.x(ms) + 4}" y="24">${escapeHtml(name)}</text>`,
    );
  // What is under the pointer, in strips.
  const strips = timeline.map(([ms, bytes], i) => {
    const next = timeline[i + 1]?.[0] ?? last[0];
    return `<rect x="${at.x(ms).toFixed(1)}" y="12" width="${Math.max(1, at.x(next) - at.x(ms)).toFixed(1)}" height="${bottom - 12}" fill="transparent" data-tip="${digits(ms)} ms\n${bytesText(bytes)} alive"/>`;
  });
  const marked = `<circle r="5" cx="${at.x(peak.ms)}" cy="${at.y(peak.bytes)}" fill="var(--c1)"/>`;
  return `<h2>Memory through Tercel's allocator</h2><p>The peak is ${bytesText(peak.bytes)}: ${escapeHtml(
    peak.madeUpOf
      .map(({ kind, bytes, count }) => `${bytesText(bytes)} ${kind} (${count})`)
      .join(', '),
  )}</p>${chart(made, `<polyline fill="none" stroke="var(--c0)" stroke-width="1.5" points="${line.join(' ')}"/>${phases.join('')}${marked}${strips.join('')}`, 'Memory over time')}`;
}

function account({ memory }: Profile): string {
  const [head, ...rows] = accountRows(memory.moments);
  const keys = [
    'arena',
    'heap',
    'heapFree',
    'js',
    'stacks',
    'files',
    'shared',
    'unexplained',
    'rss',
  ] as const;
  const cells = rows.map((row, i) =>
    row.map((text, j): Cell => ({
      text,
      value: j === 0 ? undefined : memory.moments[j - 1]!.account?.[keys[i]!],
    })),
  );
  const names = [
    'arena',
    'heap',
    'heapFree',
    'js',
    'stacks',
    'files',
    'shared',
    'unexplained',
  ] as const;
  const most = Math.max(...memory.moments.map(({ account: a }) => a?.rss ?? 0));
  const bars = memory.moments.map(({ name, account: a }, i) => {
    if (!a) return '';
    let x = 100;
    const parts = names.map((key, k) => {
      const w = (a[key] / most) * 990;
      const part = `<rect x="${x.toFixed(1)}" y="${i * 28}" width="${w.toFixed(1)}" height="22" fill="${colour(k)}" data-tip="${name}: ${key}\n${bytesText(a[key])}"/>`;
      x += w;
      return part;
    });
    return `<text x="92" y="${i * 28 + 16}" text-anchor="end">${name}</text>${parts.join('')}`;
  });
  return (
    `<h2>Resident memory</h2><p>The model takes ${bytesText(memory.growthBytes ?? NaN)}, its weights are ${bytesText(memory.weightsBytes)}; ${percent(memory.explained ?? NaN)} of the growth has an owner.</p>` +
    legend(names) +
    `<svg viewBox="0 0 1100 ${memory.moments.length * 28}" role="img" aria-label="Resident memory by owner">${bars.join('')}</svg>` +
    sortableTable(head!, cells)
  );
}

function arenaClasses({ memory }: Profile): string {
  const steady = memory.moments.find(({ name }) => name === 'steady');
  if (!steady || steady.detail.arena.reserved === 0) return '';
  const rows = steady.detail.arena.classes.map(({ objectBytes, spans, freeObjects }) => [
    { text: bytesText(objectBytes), value: objectBytes },
    { text: String(spans), value: spans },
    { text: String(freeObjects), value: freeObjects },
    { text: bytesText(freeObjects * objectBytes), value: freeObjects * objectBytes },
  ]);
  return (
    `<h2>The arena in the steady state</h2><p>${escapeHtml(arenaLine(steady))}.</p>` +
    (rows.length > 0
      ? `<p>Size classes with room; a span is 64 KiB.</p>${sortableTable(['objects of', 'spans', 'free objects', 'free'], rows)}`
      : '')
  );
}

/** One self-contained HTML file. */
export function profileHtml(profile: Profile): string {
  const { model, settings, advice, time, roof, memory, machine } = profile;
  const nodes = [...time.operators]
    .sort((a, b) => b.us - a.us)
    .map((node): (Cell | string)[] => {
      const at = roofOf(node, roof);
      return [
        node.name,
        node.operator,
        { text: digits(node.us), value: node.us },
        { text: percent(node.share), value: node.share },
        { text: bytesText(node.bytes), value: node.bytes },
        { text: node.flops === null ? '-' : digits(node.flops / 1e9), value: node.flops ?? 0 },
        { text: at ? `${percent(at.part)} ${at.bound}` : '-', value: at?.part ?? 0 },
        node.outputShape,
      ];
    });
  const allocated = memory.allocations.byOperator.map((entry): (Cell | string)[] => [
    entry.name || '(between operators)',
    entry.operator,
    { text: digits(entry.count), value: entry.count },
    { text: bytesText(Math.round(entry.bytes)), value: entry.bytes },
    { text: digits(entry.longestUs), value: entry.longestUs },
  ]);
  const body = [
    `<ul>${advice.map((sentence) => `<li>${escapeHtml(sentence)}</li>`).join('')}</ul>`,
    icicle(profile),
    `<h2>Operators</h2><p>The roof: ${digits(roof.bytesPerSecond / 1e9)} GB/s, ${digits(roof.flopsPerSecond / 1e9)} GFLOP/s.</p>`,
    sortableTable(
      ['node', 'operator', 'us', 'of the run', 'moved', 'GFLOP', 'of the roof', 'output'],
      nodes,
    ),
    time.stages.length > 0
      ? `<h2>A request on a lane</h2>${sortableTable(
          ['stage', 'us'],
          time.stages.map(({ name, us }) => [name, { text: digits(us), value: us }]),
        )}`
      : '',
    memoryChart(profile),
    `<h2>Allocations of a run</h2>${sortableTable(['during', 'operator', 'a run', 'bytes', 'longest us'], allocated)}`,
    account(profile),
    arenaClasses(profile),
    memory.cycles.length > 0
      ? `<h2>Load and unload</h2><p>Resident after each: ${memory.cycles.map(bytesText).join(', ')}</p>`
      : '',
  ];
  return page(
    `${model}: batch ${settings.batch}, ${settings.threads} thread${settings.threads === 1 ? '' : 's'}`,
    machineLine(machine),
    body.join('\n'),
  );
}
