// Tercel's server over one model, as `tercel serve` has it.
//
//   node tercel.mjs MODEL [OPTIONS]   prints its port; statistics on SIGUSR2
import { createEngine, createServer } from 'tercel';

const [, , path, options = '{}'] = process.argv;
const engine = createEngine();
const { model } = await engine.load('model', path, JSON.parse(options));
const app = createServer(engine);
const url = await app.listen({ host: '127.0.0.1', port: 0 });
process.on('SIGUSR2', () => console.log(JSON.stringify(model.stats())));
console.log(new URL(url).port);
