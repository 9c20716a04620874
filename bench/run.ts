// All questions, one after the other: npm run bench [names] [-- --short]. Writes bench/results/NAME.json,
// and what was measured into the README. Exits with 1 when a bar is missed.
//
// --short asks what takes seconds only, leaves the README alone, and fails where every round misses its bar:
// by more than the noise of that very run.
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describeMachine, machineLine } from 'tercel/measure';
import { async } from './async.js';
import { batching } from './batching.js';
import { copies } from './copies.js';
import { overGrpc } from './grpc.js';
import { harness } from './harness.js';
import { http } from './http.js';
import { interceptors } from './interceptors.js';
import { codec, json } from './json.js';
import { memory } from './memory.js';
import { overhead } from './overhead.js';
import { serving } from './serving.js';
import { sharedMemory } from './shared-memory.js';
import { startup } from './startup.js';
import { holds, holdsWithinNoise, type Bar } from './statistics.js';
import { swaps } from './swaps.js';
import { throughput } from './throughput.js';
import { watching } from './watching.js';

type Question = () => Bar[] | Promise<Bar[]>;
const questions: Record<string, { title: string; ask: Question; short?: Question }> = {
  overhead: {
    title: 'What do the synchronous calls add to the C call?',
    ask: overhead,
    short: overhead,
  },
  async: { title: 'What does an asynchronous run cost, and whom does it hold up?', ask: async },
  copies: { title: 'What is copied, and what does that cost?', ask: copies, short: copies },
  throughput: { title: 'Is compute lost on the way?', ask: throughput, short: throughput },
  batching: { title: 'Do batches pay, and does a latency target find them?', ask: batching },
  http: { title: 'What does a request cost over HTTP?', ask: http },
  interceptors: { title: 'What do interceptors cost?', ask: interceptors },
  grpc: { title: 'What does a request cost over gRPC?', ask: overGrpc },
  json: { title: 'What does JSON cost?', ask: json, short: codec },
  'shared-memory': { title: 'What does an image cost that need not be sent?', ask: sharedMemory },
  serving: { title: 'Is compute lost when large models are served?', ask: serving },
  swaps: { title: 'Do versions come and go unnoticed?', ask: swaps },
  harness: { title: 'What does the load generator itself cost?', ask: harness },
  watching: { title: 'What does watching a model cost while it serves?', ask: watching },
  startup: {
    title: 'How soon is the first result there, and what does it hold?',
    ask: startup,
    short: startup,
  },
  memory: { title: 'Is the account of memory right?', ask: memory },
};

const results = fileURLToPath(new URL('./results/', import.meta.url));
const readme = fileURLToPath(new URL('../README.md', import.meta.url));
const isShort = process.argv.includes('--short');
const named = process.argv.slice(2).filter((word) => !word.startsWith('-'));
const strange = named.find((name) => !questions[name]);
if (strange !== undefined) {
  console.error(`no question "${strange}"; there are ${Object.keys(questions).join(', ')}`);
  process.exit(2);
}

interface Result {
  question: string;
  created: string;
  machine: ReturnType<typeof describeMachine>;
  bars: Bar[];
}

/** The README's table, from all results there are. */
function refreshReadme(): void {
  const rows: string[] = ['| what | measured | bar |', '| --- | --- | --- |'];
  for (const name of Object.keys(questions)) {
    let result: Result;
    try {
      result = JSON.parse(readFileSync(`${results}${name}.json`, 'utf8')) as Result;
    } catch {
      continue; // not asked yet
    }
    for (const bar of result.bars) {
      const verdict = holds(bar) ? 'holds' : '**missed**';
      rows.push(`| ${bar.name} | ${bar.text} | ${bar.direction} ${bar.bar}: ${verdict} |`);
    }
  }
  const text = readFileSync(readme, 'utf8');
  const [begin, end] = ['<!-- bars -->', '<!-- /bars -->'];
  const from = text.indexOf(begin);
  const to = text.indexOf(end);
  if (from < 0 || to < from) throw new Error('README.md has no place for the bars');
  const made = `${begin}\n<!-- prettier-ignore-start -->\n\n${rows.join('\n')}\n\n<!-- prettier-ignore-end -->\n${end}`;
  writeFileSync(readme, text.slice(0, from) + made + text.slice(to + end.length));
}

console.log(`${machineLine(describeMachine())}\n`);
mkdirSync(results, { recursive: true });
const bars: Bar[] = [];
for (const [name, { title, ask, short }] of Object.entries(questions)) {
  if (named.length > 0 && !named.includes(name)) continue;
  const question = isShort ? short : ask;
  if (!question) continue;
  console.log(`# ${title}`);
  const measured = await question();
  bars.push(...measured);
  if (!isShort) {
    const result: Result = {
      question: title,
      created: new Date().toISOString(),
      machine: describeMachine(),
      bars: measured,
    };
    writeFileSync(`${results}${name}.json`, JSON.stringify(result, null, 2) + '\n');
    refreshReadme();
  }
  console.log();
}
const missed = bars.filter((bar) => !(isShort ? holdsWithinNoise(bar) : holds(bar)));
for (const { name } of missed) console.log(`missed: ${name}`);
console.log(`${bars.length - missed.length} of ${bars.length} bars hold`);
process.exit(missed.length ? 1 : 0);
