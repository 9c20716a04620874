// Tercel's server over one model, which clients on this machine may share memory with; prints its port.
//
//   node shared.mjs MODEL
import { createEngine, createServer } from 'tercel';

const engine = createEngine();
await engine.load('model', process.argv[2]);
const app = createServer(engine, { allowSharedMemory: true });
console.log(new URL(await app.listen({ host: '127.0.0.1', port: 0 })).port);
