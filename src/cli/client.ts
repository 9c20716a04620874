// tercel client: asks a server of the Open Inference Protocol v2.
import { writeFileSync } from 'node:fs';
import { Command } from 'commander';
import { Client, typesFile } from '../client/index.js';

export function clientCommand(): Command {
  const command = new Command('client').description(
    'Ask a server of the Open Inference Protocol v2 (Tercel, Triton, KServe)',
  );
  command
    .command('types')
    .description("Write TypeScript types of a server's models, for new Client<Models>(url)")
    .argument('<url>', 'the server, such as http://127.0.0.1:8000')
    .option(
      '--model <name>',
      'a model to write; may be given again (default: all that are ready)',
      (name: string, before: string[]) => [...before, name],
      [],
    )
    .option('--token <token>', 'sent as "Authorization: Bearer <token>"')
    .option('-o, --output <file>', 'where to write (default: standard output)')
    .action(async (url: string, flags: { model: string[]; output?: string; token?: string }) => {
      try {
        const client = new Client(url, {
          timeoutMs: 10_000,
          ...(flags.token !== undefined && {
            headers: { authorization: `Bearer ${flags.token}` },
          }),
        });
        const names =
          flags.model.length > 0
            ? flags.model
            : [...new Set((await client.index(true)).map(({ name }) => name))];
        const models = await Promise.all(names.map((name) => client.metadata(name)));
        await client.close();
        const text = typesFile(models, url);
        if (flags.output === undefined) process.stdout.write(text);
        else {
          writeFileSync(flags.output, text);
          console.log(
            `wrote ${models.length} model${models.length === 1 ? '' : 's'} to ${flags.output}`,
          );
        }
      } catch (error) {
        console.error(`tercel client types: ${(error as Error).message}`);
        process.exit(1);
      }
    });
  return command;
}
