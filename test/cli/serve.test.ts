// tercel serve as a process.
import { spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';

const root = fileURLToPath(new URL('../..', import.meta.url));
const program = path.join(root, 'dist/cli/main.js');

it('serves the repository, and finishes on SIGTERM', async () => {
  const child = spawn(
    process.execPath,
    [program, 'serve', '--models', 'models', '--http-port', '0', '--grpc-port', '0'],
    { cwd: root },
  );
  let output = '';
  child.stdout.on('data', (chunk: Buffer) => (output += chunk.toString()));
  child.stderr.on('data', (chunk: Buffer) => (output += chunk.toString()));
  const exit = new Promise<number | null>((resolve) => child.on('exit', resolve));
  while (!/serving digits at (\S+)/.test(output)) {
    if (child.exitCode !== null) throw new Error(output);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  expect(output).toMatch(/^loaded digits version 1 in \d+ ms$/m);
  const base = /serving digits at (\S+)/.exec(output)![1]!;
  const response = await fetch(`${base}/v2/models/digits/infer`, {
    method: 'POST',
    body: readFileSync(path.join(root, 'models/digits/samples/7.json')),
  });
  const answer = (await response.json()) as { outputs: { data: number[] }[] };
  expect(answer.outputs[0]!.data).toEqual([7]);
  expect(output).toMatch(/^gRPC at 127\.0\.0\.1:\d+$/m);
  child.kill('SIGTERM');
  expect(await exit).toBe(0);
  expect(output).toContain('SIGTERM: finishing requests in flight');
});

it('says what is wrong and exits with 1', () => {
  const run = (...args: string[]): { text: string; status: number | null } => {
    const { stdout, stderr, status } = spawnSync(process.execPath, [program, ...args], {
      encoding: 'utf8',
    });
    return { text: stdout + stderr, status };
  };
  const empty = mkdtempSync(path.join(tmpdir(), 'tercel-empty-'));
  for (const [args, message] of [
    [['serve'], "required option '--models <folder>' not specified"],
    [['serve', '--models', '/nope'], 'cannot read the model repository "/nope"'],
    [['serve', '--models', empty], 'no model in'],
    [
      ['serve', '--models', empty, '--http-port', '70000'],
      'It must be a whole number from 0 to 65535',
    ],
    [['server'], "unknown command 'server'"],
  ] as const) {
    const { text, status } = run(...args);
    expect(text).toContain(message);
    expect(text).not.toContain('    at ');
    expect(status).toBe(1);
  }
  rmSync(empty, { recursive: true });
  expect(run('--version')).toEqual({ text: '0.1.0\n', status: 0 });
  expect(run('serve', '--help').text).toContain('--models <folder>');
});
