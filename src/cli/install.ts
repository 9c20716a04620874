// tercel install: brings the files of a GPU provider, and says what else it needs.
import { Command } from 'commander';
import { InvalidInputError, TercelError } from '../errors.js';
import { LIBRARY_NOTE } from './doctor.js';
import { diagnose } from '../measure/index.js';
import { installFrom, installProvider, providerFiles } from '../platform/install/provider-files.js';

interface InstallFlags {
  from?: string;
  dryRun?: boolean;
  force?: boolean;
}

async function install(name: string, { from, dryRun, force }: InstallFlags): Promise<void> {
  const { folder, files, present } = providerFiles(name);
  const isThere = present.length === files.length && !force && from === undefined;
  if (dryRun) {
    console.log(`${name} needs, in ${folder}:`);
    for (const file of files)
      console.log(`  ${file}${present.includes(file) ? ', which is there' : ''}`);
    console.log(
      `They come ${from === undefined ? "by onnxruntime-node's install script, some 300 MB" : `from ${from}`}.`,
    );
  } else if (isThere) {
    console.log(`The files of ${name} are in ${folder}.`);
  } else if (from !== undefined) {
    for (const file of installFrom(name, from)) console.log(`wrote ${file}`);
  } else {
    await installProvider(name, (line) => console.log(`  ${line}`));
  }
  const { providers } = await diagnose([name]);
  const { loads, missing, error } = providers[0]!;
  if (loads) {
    console.log(`${name} loads.`);
    return;
  }
  const others = missing.filter(({ by }) => !(dryRun && by === 'tercel'));
  console.log(
    `${name} does not load${dryRun ? ' now' : ' yet'}${others.length > 0 ? '; besides, it needs:' : ''}`,
  );
  for (const { what, remedy } of others) console.log(`  ${what}\n    ${remedy}`);
  if (others.some(({ by }) => by === 'package')) console.log(LIBRARY_NOTE);
  if (missing.length === 0 && error !== undefined) console.log(`  it said: ${error}`);
  if (!dryRun) process.exitCode = 1;
}

export function installCommand(): Command {
  return new Command('install')
    .description(
      'Bring the files of a GPU provider, and say what else it needs (exit code 1 until it loads)',
    )
    .argument('<provider>', 'cuda or tensorrt')
    .option(
      '--from <file>',
      'a folder, an onnxruntime-gpu wheel or a NuGet package to take them from',
    )
    .option('--dry-run', 'say what would be done, and do nothing')
    .option('--force', 'bring them again where they are there')
    .action(async (name: string, flags: InstallFlags) => {
      try {
        await install(name.toLowerCase(), flags);
      } catch (error) {
        if (!(error instanceof TercelError)) throw error;
        console.error(`tercel install: ${error.message}`);
        process.exitCode = error instanceof InvalidInputError ? 2 : 1;
      }
    });
}
