// tercel bench report: results as a page, Markdown or CSV.
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { Command, Option } from 'commander';
import { benchHtml } from '../measure/bench/report-html.js';
import { csv, machineLine, markdown, pointRows, readBenchDocument } from '../measure/index.js';

const formats = ['html', 'md', 'csv'] as const;

export function reportCommand(): Command {
  return new Command('report')
    .description('Write results as one self-contained HTML file, as Markdown or as CSV')
    .argument('<file>', 'results of tercel bench')
    .option('-o, --output <file>', 'where to (default: standard output; html: beside the results)')
    .addOption(
      new Option('--format <name>', 'default: by the name of the output, else html').choices(
        formats,
      ),
    )
    .action((file: string, flags: { output?: string; format?: (typeof formats)[number] }) => {
      try {
        const document = readBenchDocument(file);
        const extension = path.extname(flags.output ?? '').slice(1);
        const format = flags.format ?? formats.find((known) => known === extension) ?? 'html';
        const text =
          format === 'html'
            ? benchHtml(document)
            : format === 'csv'
              ? csv(document)
              : `${machineLine(document.machine)}\n\n${markdown(pointRows(document))}\n`;
        const output =
          flags.output ?? (format === 'html' ? file.replace(/(\.json)?$/, '.html') : undefined);
        if (output === undefined) process.stdout.write(text);
        else {
          writeFileSync(output, text);
          console.log(`wrote ${output}`);
        }
      } catch (error) {
        console.error(`tercel bench report: ${(error as Error).message}`);
        process.exit(2);
      }
    });
}
