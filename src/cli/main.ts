#!/usr/bin/env node
import { Command } from 'commander';
import { version } from '../version.js';
import { benchCommand } from './bench.js';
import { clientCommand } from './client.js';
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
  .addCommand(clientCommand());

await program.parseAsync();
