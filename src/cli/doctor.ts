// tercel doctor: which execution providers load here, and what the others lack.
import { Command } from 'commander';
import { TercelError } from '../errors.js';
import { diagnose, type Diagnosis } from '../measure/index.js';

/** Of pieces that packages bring. */
export const LIBRARY_NOTE =
  "Libraries outside the system's folders, as those of pip, are found by LD_LIBRARY_PATH.";

function print(diagnosis: Diagnosis): void {
  const { tercel, node, platform, library, gpus, driver, providers } = diagnosis;
  console.log(`Tercel ${tercel}, Node ${node}, ${platform}`);
  console.log(`ONNX Runtime ${library.version}: ${library.path}`);
  console.log(
    gpus.length > 0
      ? `GPUs: ${gpus.map(({ name, memoryBytes }) => `${name} (${(memoryBytes / 2 ** 30).toFixed(0)} GiB)`).join(', ')}, driver ${gpus[0]!.driver}`
      : driver === undefined
        ? 'GPUs: no NVIDIA driver'
        : `GPUs: driver ${driver}, and nvidia-smi lists none`,
  );
  for (const { name, loads, devices = [], error, missing } of providers) {
    console.log(`\n${name.padEnd(10)} ${loads ? 'loads' : 'does not load'}`);
    for (const { provider, type, hardwareVendor, metadata } of devices) {
      const version = metadata['version'] ? ` ${metadata['version']}` : '';
      console.log(
        `  offers   ${type} of ${hardwareVendor || 'unknown make'}: ${provider}${version}`,
      );
    }
    for (const { what, remedy } of missing) console.log(`  missing  ${what}\n           ${remedy}`);
    if (error !== undefined) console.log(`  it said  ${error.split('\n')[0]!}`);
  }
  if (providers.some(({ missing }) => missing.some(({ by }) => by === 'package'))) {
    console.log(`\n${LIBRARY_NOTE}`);
  }
}

export function doctorCommand(): Command {
  return new Command('doctor')
    .description('Tell which execution providers load here, and what the others lack')
    .argument(
      '[providers...]',
      'those to try, or libraries of plugin providers by their paths (default: all that the ONNX Runtime library knows); the exit code is 1 where one does not load',
    )
    .option('--json', 'print JSON')
    .action(async (names: string[], { json }: { json?: boolean }) => {
      try {
        const isSeen = process.stderr.isTTY && !json;
        const diagnosis = await diagnose(names, (name) => {
          if (isSeen) process.stderr.write(`\r\x1b[Ktrying ${name}`);
        });
        if (isSeen) process.stderr.write('\r\x1b[K');
        if (json) console.log(JSON.stringify(diagnosis, undefined, 2));
        else print(diagnosis);
        const needed = names.length > 0 ? diagnosis.providers : diagnosis.providers.slice(0, 1);
        if (needed.some(({ loads }) => !loads)) process.exitCode = 1;
      } catch (error) {
        if (!(error instanceof TercelError)) throw error;
        console.error(`tercel doctor: ${error.message}`);
        process.exitCode = 2;
      }
    });
}
