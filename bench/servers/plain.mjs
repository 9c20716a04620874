// The plain peer: Fastify and onnxruntime-node, as one writes it in an hour. The body is the JSON header
// and the tensor behind it, or JSON alone; the answer the same way round.
//
//   node plain.mjs MODEL   prints its port
import Fastify from 'fastify';
import ort from 'onnxruntime-node';

const session = await ort.InferenceSession.create(process.argv[2], { intraOpNumThreads: 1 });
const app = Fastify({ bodyLimit: 64 * 1024 * 1024 });
app.removeAllContentTypeParsers();
app.addContentTypeParser('*', { parseAs: 'buffer' }, (_request, body, done) => done(null, body));

app.post('/v2/models/:model/infer', async (request, reply) => {
  const body = request.body;
  const isJson = request.headers['inference-header-content-length'] === undefined;
  if (isJson) {
    const feeds = {};
    for (const { name, datatype, shape, data } of JSON.parse(body.toString('utf8')).inputs) {
      feeds[name] =
        datatype === 'INT64'
          ? new ort.Tensor('int64', BigInt64Array.from(data, BigInt), shape)
          : new ort.Tensor('float32', Float32Array.from(data), shape);
    }
    const outputs = Object.entries(await session.run(feeds)).map(([name, { dims, data }]) => ({
      name,
      shape: dims,
      datatype: 'FP32',
      data: Array.from(data),
    }));
    return { model_name: request.params.model, model_version: '1', outputs };
  }
  const length = Number(request.headers['inference-header-content-length']);
  const header = JSON.parse(body.toString('utf8', 0, length));
  const feeds = {};
  let at = length;
  for (const { name, datatype, shape, parameters } of header.inputs) {
    const bytes = body.buffer.slice(
      body.byteOffset + at,
      body.byteOffset + at + parameters.binary_data_size,
    );
    at += parameters.binary_data_size;
    feeds[name] =
      datatype === 'INT64'
        ? new ort.Tensor('int64', new BigInt64Array(bytes), shape)
        : new ort.Tensor('float32', new Float32Array(bytes), shape);
  }
  const results = await session.run(feeds);
  const parts = [];
  const outputs = Object.entries(results).map(([name, { dims, data }]) => {
    parts.push(Buffer.from(data.buffer, data.byteOffset, data.byteLength));
    return {
      name,
      shape: dims,
      datatype: 'FP32',
      parameters: { binary_data_size: data.byteLength },
    };
  });
  const head = Buffer.from(
    JSON.stringify({ model_name: request.params.model, model_version: '1', outputs }),
  );
  return reply
    .type('application/octet-stream')
    .header('inference-header-content-length', head.length)
    .send(Buffer.concat([head, ...parts]));
});
console.log(new URL(await app.listen({ host: '127.0.0.1', port: 0 })).port);
