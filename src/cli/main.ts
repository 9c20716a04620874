#!/usr/bin/env node
import { Command } from 'commander';
import { version } from '../version.js';
import { benchCommand } from './bench.js';
import { clientCommand } from './client.js';
import { doctorCommand } from './doctor.js';
import { installCommand } from './install.js';
import { profileCommand } from './profile.js';
import { serveCommand } from './serve.js';

const program = new Command('tercel')
  .description('Native ONNX inference engine and model server')
  .version(version)
  .enablePositionalOptions() // commands below commands have options of the same names
  .showHelpAfterError('(tercel --help shows the commands, tercel <command> --help their options)')
  .addCommand(serveCommand())
  .addCommand(benchCommand())
  .addCommand(profileCommand())
  .addCommand(doctorCommand())
  .addCommand(installCommand())
  .addCommand(clientCommand());

// What was asked wrongly is told from what was found to be worse, which is 1.
function endWithTwo(command: Command): void {
  command.exitOverride(({ exitCode }) => process.exit(exitCode === 0 ? 0 : 2));
  command.commands.forEach(endWithTwo);
}
for (const command of program.commands) {
  if (['bench', 'profile', 'doctor', 'install'].includes(command.name())) endWithTwo(command);
}

await program.parseAsync();
