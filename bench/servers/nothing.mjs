// Fastify alone: reads the same body and answers the same bytes, without inference.
//
//   node nothing.mjs OUTPUT ELEMENTS   prints its port
import Fastify from 'fastify';

const [, , name, elements] = process.argv;
const bytes = Number(elements) * 4;
const head = Buffer.from(
  JSON.stringify({
    model_name: 'model',
    model_version: '1',
    outputs: [
      {
        name,
        shape: [1, Number(elements)],
        datatype: 'FP32',
        parameters: { binary_data_size: bytes },
      },
    ],
  }),
);
const answer = Buffer.concat([head, Buffer.alloc(bytes)]);
const app = Fastify({ bodyLimit: 64 * 1024 * 1024 });
app.removeAllContentTypeParsers();
app.addContentTypeParser('*', { parseAs: 'buffer' }, (_request, body, done) => done(null, body));
app.post('/v2/models/:model/infer', (_request, reply) =>
  reply
    .type('application/octet-stream')
    .header('inference-header-content-length', head.length)
    .send(answer),
);
console.log(new URL(await app.listen({ host: '127.0.0.1', port: 0 })).port);
