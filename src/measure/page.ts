// Self-contained pages: one HTML file with its style and its script, no request to anywhere, readable in
// light and in dark.

export function escapeHtml(text: string): string {
  return text.replace(
    /[&<>"']/g,
    (c) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' })[c]!,
  );
}

/** JSON that may stand in a script. */
export function scriptJson(value: unknown): string {
  return JSON.stringify(value)
    .replaceAll('<', '\\u003c')
    .replaceAll('\u2028', '\\u2028')
    .replaceAll('\u2029', '\\u2029');
}

const STYLE = `
:root { color-scheme: light dark; --back: #fff; --front: #1c2024; --soft: #667; --line: #d8dce2; --panel: #f6f7f9;
  --c0: #2266cc; --c1: #c2410c; --c2: #15803d; --c3: #9333ea; --c4: #b45309; --c5: #0e7490; --c6: #be185d; --c7: #4d7c0f; }
@media (prefers-color-scheme: dark) {
  :root { --back: #14171a; --front: #e6e8ea; --soft: #9aa4af; --line: #343a41; --panel: #1d2125;
    --c0: #6ea8ff; --c1: #ff9a62; --c2: #5bd28a; --c3: #c99bff; --c4: #f3b64c; --c5: #5cd0e6; --c6: #ff7fb8; --c7: #a9d65c; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1180px; padding: 24px; background: var(--back); color: var(--front);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 22px; margin: 0 0 4px; } h2 { font-size: 17px; margin: 32px 0 8px; }
p, .soft { color: var(--soft); margin: 4px 0; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; width: 100%; font-size: 13px; }
th, td { text-align: right; padding: 4px 10px; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
th button { all: unset; cursor: pointer; font-weight: 600; }
th button:focus-visible { outline: 2px solid var(--c0); }
th[aria-sort=ascending] button::after { content: ' \\2191'; } th[aria-sort=descending] button::after { content: ' \\2193'; }
svg { display: block; width: 100%; height: auto; background: var(--panel); border-radius: 6px; }
svg text { fill: var(--soft); font: 12px system-ui, sans-serif; }
svg .axis { stroke: var(--line); stroke-width: 1; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 16px; font-size: 13px; margin: 6px 0; }
.legend i { display: inline-block; width: 10px; height: 10px; border-radius: 2px; margin-right: 5px; }
#tip { position: fixed; pointer-events: none; display: none; z-index: 1; background: var(--front); color: var(--back);
  padding: 4px 8px; border-radius: 4px; font-size: 12px; max-width: 420px; white-space: pre-line; }
[data-tip] { cursor: default; } [data-tip]:hover { filter: brightness(1.15); }
`;

/** Sorts tables by the columns' heads, and shows what is under the pointer. */
const SCRIPT = `
for (const table of document.querySelectorAll('table[data-sort]')) {
  table.querySelectorAll('th').forEach((th, column) => th.querySelector('button').addEventListener('click', () => {
    const up = th.getAttribute('aria-sort') !== 'ascending';
    table.querySelectorAll('th').forEach((other) => other.removeAttribute('aria-sort'));
    th.setAttribute('aria-sort', up ? 'ascending' : 'descending');
    const body = table.tBodies[0];
    const value = (row) => { const cell = row.cells[column]; const v = cell.dataset.value ?? cell.textContent;
      const n = Number(v); return v !== '' && !Number.isNaN(n) ? n : v; };
    const order = (a, b) => typeof a === 'number' && typeof b === 'number' ? a - b : String(a).localeCompare(String(b));
    [...body.rows].sort((a, b) => (up ? 1 : -1) * order(value(a), value(b))).forEach((row) => body.append(row));
  }));
}
const tip = document.getElementById('tip');
addEventListener('pointermove', (event) => {
  const marked = event.target.closest?.('[data-tip]');
  tip.style.display = marked ? 'block' : 'none';
  if (!marked) return;
  tip.textContent = marked.dataset.tip;
  const box = tip.getBoundingClientRect();
  tip.style.left = Math.max(4, Math.min(event.clientX + 14, innerWidth - box.width - 8)) + 'px';
  tip.style.top = Math.max(4, Math.min(event.clientY + 14, innerHeight - box.height - 8)) + 'px';
});
`;

/**
 * @param title also the heading
 * @param subtitle a line below it
 * @param body HTML
 */
export function page(title: string, subtitle: string, body: string): string {
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>${escapeHtml(title)}</title>
<style>${STYLE}</style>
</head>
<body>
<h1>${escapeHtml(title)}</h1>
<p>${escapeHtml(subtitle)}</p>
${body}
<div id="tip" role="status"></div>
<script>${SCRIPT}</script>
</body>
</html>
`;
}

export interface Cell {
  text: string;
  /** What it is sorted by, where that is not its text. */
  value?: number | undefined;
}

/** A table that sorts by its heads. */
export function sortableTable(
  head: readonly string[],
  rows: readonly (readonly (Cell | string)[])[],
): string {
  const cell = (one: Cell | string): string => {
    const { text, value } = typeof one === 'string' ? { text: one, value: undefined } : one;
    return `<td${value === undefined ? '' : ` data-value="${value}"`}>${escapeHtml(text)}</td>`;
  };
  return `<div class="wide"><table data-sort><thead><tr>${head
    .map((name) => `<th scope="col"><button>${escapeHtml(name)}</button></th>`)
    .join('')}</tr></thead><tbody>${rows
    .map((row) => `<tr>${row.map(cell).join('')}</tr>`)
    .join('')}</tbody></table></div>`;
}

/** The colour of the nth series. */
export const colour = (n: number): string => `var(--c${n % 8})`;

export function legend(names: readonly string[]): string {
  return `<div class="legend">${names
    .map((name, i) => `<span><i style="background:${colour(i)}"></i>${escapeHtml(name)}</span>`)
    .join('')}</div>`;
}

/** Numbers that a scale is labelled with. */
export function ticks(low: number, high: number, isLog: boolean): number[] {
  if (isLog && !(low > 0 && high < Infinity)) return [];
  if (isLog) {
    const list: number[] = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) {
      for (const step of [1, 2, 5]) {
        const value = step * 10 ** power;
        if (value >= low * 0.999 && value <= high * 1.001) list.push(value);
      }
    }
    return list.length > 8
      ? list.filter((value) => /^1(e|0*$|$)|^0\.0*1$/.test(String(value)))
      : list;
  }
  const rough = (high - low) / 5 || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough)!;
  const list: number[] = [];
  for (let at = Math.ceil(low / step) * step; at <= high + step * 1e-9; at += step) {
    list.push(Number(at.toPrecision(12)));
  }
  return list;
}

export interface Chart {
  width: number;
  height: number;
  x: { low: number; high: number; log: boolean; label: string; text: (value: number) => string };
  y: { low: number; high: number; log: boolean; label: string; text: (value: number) => string };
}

const MARGIN = { left: 64, right: 16, top: 12, bottom: 40 };

/** Where a value lies in the chart. */
export function place({ width, height, x, y }: Chart): {
  x: (v: number) => number;
  y: (v: number) => number;
} {
  const scale = (axis: Chart['x'], from: number, to: number) => {
    const f = (value: number): number => (axis.log ? Math.log10(value) : value);
    const low = f(axis.low);
    const span = f(axis.high) - low || 1;
    return (value: number): number => from + ((f(value) - low) / span) * (to - from);
  };
  return {
    x: scale(x, MARGIN.left, width - MARGIN.right),
    y: scale(y, height - MARGIN.bottom, MARGIN.top),
  };
}

/** A chart with its axes around `marks`, which are SVG. */
export function chart(made: Chart, marks: string, label: string): string {
  const at = place(made);
  const { width, height, x, y } = made;
  const bottom = height - MARGIN.bottom;
  const lines = [
    ...ticks(x.low, x.high, x.log).map(
      (v) =>
        `<line class="axis" x1="${at.x(v)}" x2="${at.x(v)}" y1="${MARGIN.top}" y2="${bottom}"/>` +
        `<text x="${at.x(v)}" y="${bottom + 16}" text-anchor="middle">${escapeHtml(x.text(v))}</text>`,
    ),
    ...ticks(y.low, y.high, y.log).map(
      (v) =>
        `<line class="axis" x1="${MARGIN.left}" x2="${width - MARGIN.right}" y1="${at.y(v)}" y2="${at.y(v)}"/>` +
        `<text x="${MARGIN.left - 6}" y="${at.y(v) + 4}" text-anchor="end">${escapeHtml(y.text(v))}</text>`,
    ),
  ];
  return (
    `<svg viewBox="0 0 ${width} ${height}" role="img" aria-label="${escapeHtml(label)}">${lines.join('')}` +
    `<text x="${width - MARGIN.right}" y="${height - 6}" text-anchor="end">${escapeHtml(x.label)}</text>` +
    `<text x="6" y="${MARGIN.top + 4}" transform="rotate(-90 12 ${MARGIN.top})" text-anchor="end">${escapeHtml(y.label)}</text>` +
    `${marks}</svg>`
  );
}
