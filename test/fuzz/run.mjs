// Fuzzes the codecs: node test/fuzz/run.mjs TARGET|all [SECONDS] [SEED]
//
// Inputs come from a corpus by small changes. A finding is written to build/fuzz/ and ends the run with 1.
import { mkdirSync, writeFileSync } from 'node:fs';
import { Random, mutated } from './mutate.mjs';
import { corpusOf, isText, names, runOne } from './targets.mjs';

const [, , which = 'all', seconds = '10', seed = String(Date.now() % 2 ** 31)] = process.argv;
const chosen = which === 'all' ? names : [which];
if (chosen.some((name) => !names.includes(name))) {
  console.error(`no target "${which}"; they are all, ${names.join(', ')}`);
  process.exit(2);
}
/** An input is small: nothing may take so long with it. */
const SLOW_MS = 2000;
const REPORT_MS = 30_000;
/** Inputs that were taken whole are kept, to be changed further. */
const MAX_GROWN = 2000;

let failed = 0;
for (const name of chosen) {
  const random = new Random(Number(seed));
  const corpus = corpusOf(name);
  const seeds = corpus.length;
  const end = performance.now() + (Number(seconds) * 1000) / chosen.length;
  let reported = performance.now();
  let count = 0;
  let finding;
  const attempt = (bytes) => {
    const start = performance.now();
    try {
      runOne(name, bytes);
      const ms = performance.now() - start;
      if (ms > SLOW_MS) throw new Error(`it took ${ms.toFixed(0)} ms`);
    } catch (error) {
      finding = { bytes, error };
    }
    count++;
  };
  for (const bytes of corpus) if (!finding) attempt(bytes);
  while (!finding && performance.now() < end) {
    for (let i = 0; i < 200 && !finding; i++) {
      const bytes = mutated(random, corpus, isText(name));
      attempt(bytes);
      if (i % 50 === 0 && corpus.length < MAX_GROWN) corpus.push(bytes);
    }
    if (corpus.length >= MAX_GROWN) corpus.length = seeds;
    if (performance.now() - reported > REPORT_MS) {
      reported = performance.now();
      console.log(`${name}: ${count} inputs, ${((end - reported) / 1000).toFixed(0)} s to go`);
    }
  }
  if (finding) {
    failed++;
    mkdirSync('build/fuzz', { recursive: true });
    const file = `build/fuzz/${name}-${seed}-${count}`;
    writeFileSync(file, finding.bytes);
    console.error(`${name}: a finding after ${count} inputs, seed ${seed}, in ${file}:`);
    console.error(finding.error);
    console.error(JSON.stringify(finding.bytes.toString('latin1').slice(0, 500)));
  } else {
    console.log(`${name}: ${count} inputs, seed ${seed}: nothing`);
  }
}
process.exit(failed ? 1 : 0);
