// A profile as text, and as a trace for Perfetto.
import type { TraceEvent } from './operators.js';
import { byKind, roofOf, type Moment, type Profile } from './profile.js';
import { bytesText, columns, digits } from '../table.js';

const percent = (part: number): string => `${(part * 100).toFixed(1)} %`;

const OWNERS = [
  ['arena', "Tercel's arena"],
  ['heap', "the C library's heap"],
  ['heapFree', 'free in that heap'],
  ['js', "V8's heap"],
  ['stacks', 'stacks'],
  ['files', 'files and libraries'],
  ['shared', 'shared memory'],
  ['unexplained', 'unexplained'],
] as const;

/** The account's rows: an owner, and its memory at each moment. */
export function accountRows(moments: readonly Moment[]): string[][] {
  const at = (key: (typeof OWNERS)[number][0] | 'rss'): string[] =>
    moments.map(({ account }) => (account ? bytesText(account[key]) : '-'));
  return [
    ['resident', ...moments.map(({ name }) => name)],
    ...OWNERS.map(([key, name]) => [name, ...at(key)]),
    ['together', ...at('rss')],
  ];
}

/** Of the arena, what is used, and in how many pieces the rest is. */
export function arenaLine({ detail: { arena } }: Moment): string {
  const { reserved, leased, freePages, largestFree, fragmentation } = arena;
  return (
    `The arena holds ${bytesText(reserved)}, of which ${bytesText(leased)} are used and ${bytesText(freePages)} free; ` +
    `the largest free piece is ${bytesText(largestFree)}, so ${percent(fragmentation)} of what is free is in smaller ones`
  );
}

/** What a person can act on, in a terminal. */
export function profileText({ model, settings, time, memory, roof, advice }: Profile): string {
  const kinds = byKind(time.operators);
  const top = [...time.operators].sort((a, b) => b.us - a.us).slice(0, 10);
  const { allocations } = memory;
  return [
    `${model}: batch ${settings.batch}, ${settings.threads} thread${settings.threads === 1 ? '' : 's'}`,
    '',
    ...advice.map((sentence) => `- ${sentence}`),
    '',
    `Time: a run takes ${digits(time.plainUs)} us; its operators together ${digits(time.operatorsUs)} us (${percent(time.operatorsUs / time.plainUs)}) ` +
      `by the library's profile, which adds ${digits(time.betweenUs)} us between them`,
    columns([
      ['operator', 'nodes', 'us', 'of the run'],
      ...kinds.map(({ operator, count, us, share }) => [
        operator,
        String(count),
        digits(us),
        percent(share),
      ]),
    ]),
    '',
    `The largest nodes; the roof is ${digits(roof.bytesPerSecond / 1e9)} GB/s and ${digits(roof.flopsPerSecond / 1e9)} GFLOP/s:`,
    columns([
      ['node', 'operator', 'us', 'of the run', 'moved', 'GFLOP', 'of the roof'],
      ...top.map((node) => {
        const at = roofOf(node, roof);
        return [
          node.name,
          node.operator,
          digits(node.us),
          percent(node.share),
          bytesText(node.bytes),
          node.flops === null ? '-' : digits(node.flops / 1e9),
          at ? `${percent(at.part)} (${at.bound})` : '-',
        ];
      }),
    ]),
    ...(time.stages.length > 0
      ? [
          '',
          'A request on a lane, one at a time, us:',
          columns([['stage', 'us'], ...time.stages.map(({ name, us }) => [name, digits(us)])]),
        ]
      : []),
    '',
    `Memory: the model takes ${bytesText(memory.growthBytes ?? NaN)} resident, its weights are ${bytesText(memory.weightsBytes)}; ${percent(memory.explained ?? NaN)} of the growth has an owner`,
    columns(accountRows(memory.moments)),
    '',
    `Through Tercel's allocator, ${bytesText(allocations.peak.bytes)} alive at the peak:`,
    columns([
      ['what', 'at its most', 'allocations', 'at the peak'],
      ...allocations.kinds.map(({ kind, bytes, count }) => [
        kind,
        bytesText(bytes),
        String(count),
        bytesText(allocations.peak.madeUpOf.find((part) => part.kind === kind)?.bytes ?? 0),
      ]),
    ]),
    arenaLine(memory.moments.find(({ name }) => name === 'steady')!),
    ...(memory.cycles.length > 0
      ? [`Resident after each load and unload: ${memory.cycles.map(bytesText).join(', ')}`]
      : []),
  ].join('\n');
}

/** The library's profile as Chrome's Trace Event format, with memory as a counter; Perfetto opens it. */
export function traceJson(profile: Profile, events: readonly TraceEvent[]): string {
  const listed: unknown[] = events.map((event) => ({ ph: 'X', pid: 1, ...event }));
  for (const [ms, bytes] of profile.memory.allocations.timeline) {
    listed.push({ ph: 'C', pid: 2, tid: 0, name: 'arena', ts: ms * 1000, args: { bytes } });
  }
  listed.push({ ph: 'M', pid: 1, name: 'process_name', args: { name: `${profile.model}: runs` } });
  listed.push({
    ph: 'M',
    pid: 2,
    name: 'process_name',
    args: { name: `${profile.model}: memory` },
  });
  return JSON.stringify({ traceEvents: listed, displayTimeUnit: 'ms' });
}
