// Tercel's gRPC server over one model; prints its port.
//
//   node grpc.mjs MODEL
import { createEngine, createGrpcServer } from 'tercel';

const engine = createEngine();
await engine.load('model', process.argv[2]);
console.log(await createGrpcServer(engine).listen({ port: 0 }));
