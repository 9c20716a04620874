// mlp by Tercel, with interceptors: intercepted.mjs MODEL plain|headers|verbose. What is logged goes to a file.
import { mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { createEngine, createServer, Logging, TercelError } from 'tercel';

const [model, mode] = process.argv.slice(2);
const engine = createEngine();
await engine.load('model', model);
const logging = new Logging();
if (mode === 'headers') {
  engine.use({
    name: 'authorization',
    headers: ['authorization'],
    kinds: ['infer'],
    enter(exchange) {
      if (exchange.header('authorization') !== 'Bearer secret') {
        throw new TercelError('UNAUTHENTICATED', 'who are you?');
      }
    },
  });
  let last = '';
  engine.use({
    name: 'trace',
    headers: ['traceparent'],
    kinds: ['infer'],
    enter(exchange) {
      last = exchange.header('traceparent') ?? '';
      if (last.length !== 55) throw new TercelError('INVALID_INPUT', `no traceparent: "${last}"`);
    },
  });
}
const app = createServer(engine, { logging });
await app.listen({ host: '127.0.0.1', port: 0 });
console.log(app.server.address().port);
if (mode === 'verbose') {
  // As an operator has it: standard output is a file, which is written before write() returns.
  const folder = mkdtempSync(path.join(tmpdir(), 'tercel-log-'));
  const file = openSync(path.join(folder, 'log'), 'w');
  rmSync(folder, { recursive: true }); // it goes with the process
  process.stdout.write = (text) => writeSync(file, text) > 0;
  logging.change({ log_verbose_level: 1 });
}
process.stdin.resume();
