// tercel bench compare: two or more results side by side.
import { Command } from 'commander';
import {
  columns,
  compareDefaults,
  compareDocuments,
  digits,
  machineLine,
  markdown,
  readBenchDocument,
  worstLoss,
  type BenchDocument,
} from '../measure/index.js';
import { part } from './options.js';

interface Flags {
  failAbove?: number;
  margin: number;
  confidence: number;
  markdown?: true;
}

function nameOf({ label, created }: BenchDocument, file: string): string {
  return label || `${file} (${created.slice(0, 16)})`;
}

export function compareCommand(): Command {
  return new Command('compare')
    .description('Compare results with the first: machines, commits, settings')
    .argument('<files...>', 'two or more results of tercel bench')
    .option('--fail-above <part>', 'exit with 1 where anything is worse by more, as 5%', part)
    .option('--margin <part>', 'smaller differences do not count', part, compareDefaults.margin)
    .option('--confidence <part>', 'of the intervals', part, compareDefaults.confidence)
    .option('--markdown', 'a table for Markdown')
    .addHelpText(
      'after',
      `
A difference counts where the confidence interval of the ratio of means (bootstrap over the rounds) does
not hold 1, and it is larger than the margin. Where the results are of one machine and have the bare C loop
beside each point, ratios are in units of it, which takes out what the machine did meanwhile.`,
    )
    .action((files: string[], flags: Flags) => {
      try {
        const documents = files.map((file) => readBenchDocument(file));
        const { rows, missing } = compareDocuments(documents, flags);
        documents.forEach((document, i) => {
          console.log(
            `${i === 0 ? 'base' : `   ${i}`}: ${nameOf(document, files[i]!)}; ${machineLine(document.machine)}`,
          );
        });
        const table = [
          [
            'point',
            'metric',
            ...documents.map((_, i) => (i === 0 ? 'base' : String(i))),
            ...documents.slice(1).flatMap((_, i) => [`${i + 1} of base`, 'verdict']),
          ],
          ...rows.map(({ id, metric, values, ratios, verdicts, relative }) => [
            id,
            metric,
            ...values.map(digits),
            ...ratios.flatMap(({ value, low, high }, i) => [
              `${value.toFixed(3)}${relative ? ' *' : ''} (${low.toFixed(3)}-${high.toFixed(3)})`,
              verdicts[i]!,
            ]),
          ]),
        ];
        console.log(flags.markdown ? markdown(table) : columns(table));
        if (rows.some(({ relative }) => relative))
          console.log('* in units of the C loop beside it');
        documents.forEach(({ partial }, i) => {
          if (partial) console.log(`${files[i]} is partial: its run ended before it was complete`);
        });
        for (const id of missing) console.log(`not in all of them: ${id}`);
        const loss = worstLoss(rows);
        if (flags.failAbove !== undefined && loss > flags.failAbove) {
          console.error(
            `tercel bench compare: worse by ${(loss * 100).toFixed(1)} %, more than ${(flags.failAbove * 100).toFixed(1)} %`,
          );
          process.exit(1);
        }
      } catch (error) {
        console.error(`tercel bench compare: ${(error as Error).message}`);
        process.exit(2);
      }
    });
}
