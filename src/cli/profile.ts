// tercel profile: where a model's memory and time go.
import { writeFileSync } from 'node:fs';
import v8 from 'node:v8';
import vm from 'node:vm';
import { Command } from 'commander';
import { profile } from '../measure/profile/profile.js';
import { profileHtml } from '../measure/profile/profile-html.js';
import { profileText, traceJson } from '../measure/profile/profile-text.js';
import { mayWrite, pairs, wholeNumber } from './options.js';

interface Flags {
  threads: number;
  batch: number;
  runs: number;
  cycles: number;
  provider?: string;
  input?: Record<string, string>;
  shape?: Record<string, string>;
  dim?: Record<string, string>;
  output?: string;
  html?: string;
  trace?: string;
  quiet?: true;
}

const dims = (text: string): number[] => text.split(/[x,]/).map(wholeNumber);

export function profileCommand(): Command {
  return new Command('profile')
    .description("Show where a model's memory and time go")
    .argument('<model>', 'a model file')
    .option('--threads <number>', 'of one run', wholeNumber, 1)
    .option('--batch <number>', 'rows of a run', wholeNumber, 1)
    .option('--runs <number>', 'that are measured', wholeNumber, 30)
    .option('--cycles <number>', 'loads and unloads', wholeNumber, 5)
    .option('--provider <names>', 'execution providers, as a+b')
    .option('--input <name=file>', '.npy, .npz, .json or an image; may be given again', pairs)
    .option('--shape <name=shape>', "an input's, as 1x3x224x224; may be given again", pairs)
    .option('--dim <name=size>', "a dynamic dimension's; may be given again", pairs)
    .option('-o, --output <file>', 'write the profile as JSON')
    .option('--html <file>', 'write it as one self-contained page')
    .option('--trace <file>', 'write a trace that Perfetto and chrome://tracing open')
    .option('--quiet', 'no progress')
    .action(async (model: string, flags: Flags) => {
      // Garbage of JS is no part of a model's memory.
      v8.setFlagsFromString('--expose-gc');
      (globalThis as { gc?: unknown }).gc ??= vm.runInNewContext('gc');
      mayWrite('tercel profile', flags.output, flags.html, flags.trace);
      const interrupt = new AbortController();
      process.once('SIGINT', () => interrupt.abort(new Error('interrupted')));
      try {
        const sizes = Object.entries(flags.dim ?? {}).map(([name, value]) => [
          name,
          dims(value)[0]!,
        ]);
        const shapes = Object.entries(flags.shape ?? {}).map(([name, value]) => [
          name,
          dims(value),
        ]);
        const { profile: made, trace } = await profile(model, {
          threads: flags.threads,
          batch: flags.batch,
          runs: flags.runs,
          cycles: flags.cycles,
          dimensions: Object.fromEntries(sizes) as Record<string, number>,
          shapes: Object.fromEntries(shapes) as Record<string, number[]>,
          files: flags.input ?? {},
          ...(flags.provider !== undefined && { providers: flags.provider.split('+') }),
          signal: interrupt.signal,
          onProgress: (phase) => {
            if (!flags.quiet) process.stderr.write(`${phase} ...\n`);
          },
        });
        if (flags.output !== undefined) writeFileSync(flags.output, JSON.stringify(made) + '\n');
        if (flags.html !== undefined) writeFileSync(flags.html, profileHtml(made));
        if (flags.trace !== undefined) writeFileSync(flags.trace, traceJson(made, trace));
        console.log(profileText(made));
        for (const file of [flags.output, flags.html, flags.trace]) {
          if (file !== undefined) console.log(`wrote ${file}`);
        }
      } catch (error) {
        console.error(`tercel profile: ${(error as Error).message}`);
        process.exit(interrupt.signal.aborted ? 130 : 2);
      }
    });
}
