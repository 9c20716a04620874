// An @grpc/grpc-js service that reads the same bytes and answers the same bytes, without inference.
//
//   node grpc-nothing.mjs FILE   the answer; prints its port
import { readFileSync } from 'node:fs';
import grpc from '@grpc/grpc-js';

const answer = readFileSync(process.argv[2]);
const same = (bytes) => bytes;
const server = new grpc.Server();
server.addService(
  {
    ModelInfer: {
      path: '/inference.GRPCInferenceService/ModelInfer',
      requestStream: false,
      responseStream: false,
      requestDeserialize: same,
      requestSerialize: same,
      responseDeserialize: same,
      responseSerialize: same,
    },
  },
  { ModelInfer: (_call, callback) => callback(null, answer) },
);
server.bindAsync('127.0.0.1:0', grpc.ServerCredentials.createInsecure(), (error, port) => {
  if (error) throw error;
  console.log(port);
});
