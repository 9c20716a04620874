// Malformed requests against a running server: node test/fuzz/server.mjs [COUNT] [SEED]
//
// Over HTTP (v2 in JSON and binary, TensorFlow Serving), over gRPC, and as bytes that are hardly HTTP, all on
// loopback. Each must be answered 4xx or with a status of the caller's fault (what happens to be well-formed
// may be 200); good requests beside them must go on unharmed. Ends with 1 when something else happens.
import { spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import http2 from 'node:http2';
import net from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { Random, mutated } from './mutate.mjs';
import { identity } from '../support/identity.mjs';
import { corpusOf } from './targets.mjs';

const [, , countText = '100000', seedText = '1'] = process.argv;
const COUNT = Number(countText);
const random = new Random(Number(seedText));
const root = fileURLToPath(new URL('../..', import.meta.url));
/** At once, of each kind. */
const CONCURRENT = 8;
const PATIENCE_MS = 10_000;

async function start() {
  const folder = mkdtempSync(path.join(tmpdir(), 'tercel-fuzz-'));
  mkdirSync(path.join(folder, 'm', '1'), { recursive: true });
  writeFileSync(path.join(folder, 'm', '1', 'model.onnx'), identity());
  const child = spawn(
    process.execPath,
    [
      path.join(root, 'dist/cli/main.js'), 'serve', '--models', folder, '--http-port', '0',
      '--grpc-port', '0', '--tfs-grpc-port', '0', '--model-control', 'explicit', '--load-model', 'm',
      '--body-limit', '1000000', '--allow-shared-memory',
    ], // prettier-ignore
    { stdio: ['ignore', 'pipe', 'inherit'] },
  );
  const ports = {};
  for await (const line of createInterface(child.stdout)) {
    const http = /^serving .* at http:\/\/127.0.0.1:(\d+)$/.exec(line);
    const tfs = /^TensorFlow Serving gRPC at 127.0.0.1:(\d+)$/.exec(line);
    const grpc = /^gRPC at 127.0.0.1:(\d+)$/.exec(line);
    if (http) ports.http = Number(http[1]);
    if (tfs) ports.tfsGrpc = Number(tfs[1]);
    if (grpc) ports.grpc = Number(grpc[1]);
    if (ports.grpc) break;
  }
  const exited = new Promise((resolve) => child.on('exit', resolve));
  return {
    ports,
    exited,
    async stop() {
      child.kill('SIGTERM');
      const code = await exited;
      rmSync(folder, { recursive: true });
      return code;
    },
  };
}

const server = await start();
const agent = new http.Agent({ keepAlive: true, maxSockets: 64 });

function ask(method, url, body, headers = {}) {
  return new Promise((resolve, reject) => {
    const request = http.request(
      {
        agent,
        host: '127.0.0.1',
        port: server.ports.http,
        method,
        path: url,
        headers,
        timeout: PATIENCE_MS,
      },
      (response) => {
        const chunks = [];
        response.on('data', (chunk) => chunks.push(chunk));
        response.on('end', () =>
          resolve({ status: response.statusCode, body: Buffer.concat(chunks) }),
        );
        response.on('error', reject);
      },
    );
    request.on('timeout', () => request.destroy(new Error('no answer')));
    request.on('error', reject);
    request.end(body);
  });
}

const seen = new Map();
const findings = [];
function note(kind, outcome, good, what) {
  const key = `${kind}: ${outcome}`;
  seen.set(key, (seen.get(key) ?? 0) + 1);
  if (!good && findings.length < 10) findings.push(`${key} for ${what()}`);
}

const show = (bytes) => JSON.stringify(bytes.toString('latin1').slice(0, 300));

/** One malformed HTTP request of a kind. */
async function overHttp(kind, url, bytes, headers) {
  const attempt = () => ask('POST', url, bytes, headers);
  let answer;
  try {
    answer = await attempt().catch((error) => {
      // A connection that the server had closed meanwhile.
      if (error.code === 'ECONNRESET' || error.code === 'EPIPE') return attempt();
      throw error;
    });
  } catch (error) {
    note(kind, error.code ?? error.message, false, () => show(bytes));
    return;
  }
  const good = answer.status === 200 || (answer.status >= 400 && answer.status < 500);
  note(kind, answer.status, good, () => `${show(bytes)}: ${answer.body.toString().slice(0, 200)}`);
  if (answer.status >= 400 && typeof JSON.parse(answer.body.toString()).error !== 'string') {
    note(kind, 'an error without its text', false, () => show(bytes));
  }
}

const sessions = {};
function sessionOf(port) {
  const known = sessions[port];
  if (known && !known.closed && !known.destroyed) return known;
  const session = http2.connect(`http://127.0.0.1:${port}`);
  session.on('error', () => {});
  sessions[port] = session;
  return session;
}

/** One malformed gRPC call. */
function overGrpc(kind, port, method, frame, headers = {}) {
  return new Promise((resolve) => {
    const stream = sessionOf(port).request({
      ':method': 'POST',
      ':path': method,
      'content-type': 'application/grpc',
      te: 'trailers',
      ...headers,
    });
    let status;
    let httpStatus;
    const timer = setTimeout(() => stream.close(), PATIENCE_MS);
    stream.on('response', (got) => {
      httpStatus = got[':status'];
      status ??= got['grpc-status'];
    });
    stream.on('trailers', (got) => (status ??= got['grpc-status']));
    stream.on('data', () => {});
    stream.on('error', () => {});
    stream.on('close', () => {
      clearTimeout(timer);
      const answered = status === undefined ? `HTTP ${httpStatus}` : `grpc-status ${status}`;
      // OK, INVALID_ARGUMENT, DEADLINE_EXCEEDED, NOT_FOUND, RESOURCE_EXHAUSTED, UNIMPLEMENTED; 13 is
      // grpc-js's for what it cannot read as the protocol at all.
      const own = ['0', '3', '4', '5', '8', '12'].includes(status);
      const theirs = status === '13' && kind.endsWith('framing');
      note(kind, answered, own || theirs || httpStatus === 415, () => show(frame));
      resolve();
    });
    stream.end(frame);
  });
}

/** Bytes that are hardly HTTP: answered 4xx, or the connection ends. */
function overSocket(bytes) {
  return new Promise((resolve) => {
    const socket = net.connect(server.ports.http, '127.0.0.1');
    let got = '';
    socket.setTimeout(1000, () => socket.destroy());
    socket.on('data', (chunk) => {
      got += chunk.toString('latin1');
      if (got.length > 12) socket.destroy();
    });
    socket.on('error', () => {});
    socket.on('close', () => {
      const status = /^HTTP\/1\.1 (\d+)/.exec(got)?.[1] ?? (got === '' ? 'closed' : 'no HTTP');
      note('socket', status, status === 'closed' || /^[24]/.test(status), () => show(bytes));
      resolve();
    });
    socket.end(bytes);
  });
}

function frameOf(message, flag = 0, length = message.length) {
  const prefix = Buffer.alloc(5);
  prefix[0] = flag;
  prefix.writeUInt32BE(length >>> 0, 1);
  return Buffer.concat([prefix, message]);
}

const corpora = {
  json: corpusOf('json'),
  binary: corpusOf('binary'),
  grpc: corpusOf('grpc'),
  tfsJson: corpusOf('tfs-json'),
  tfsGrpc: corpusOf('tfs-grpc'),
};
const rawHttp = [
  'POST /v2/models/m/infer HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}',
  'POST /v2/models/m/infer HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n',
  'GET /v2/health/live HTTP/1.1\r\nHost: a\r\n\r\n',
  'POST /v1/models/m:predict HTTP/1.1\r\nHost: a\r\nInference-Header-Content-Length: 1\r\nContent-Length: 2\r\n\r\n{}',
].map((text) => Buffer.from(text));
const INFER = '/inference.GRPCInferenceService/ModelInfer';

const kinds = [
  () => overHttp('v2 JSON', '/v2/models/m/infer', mutated(random, corpora.json, true)),
  () => {
    const bytes = mutated(random, corpora.binary, false);
    const length = bytes.length < 2 ? 0 : random.below(bytes.length + 8);
    return overHttp('v2 binary', '/v2/models/m/versions/1/infer', bytes.subarray(2), {
      'inference-header-content-length': random.below(8) === 0 ? random.of(['', '-1', 'x', '1e3', '99999999999999999999']) : length,
    });
  },
  () => overHttp('v2 generate', '/v2/models/m/generate', mutated(random, corpora.json, true)),
  () => overHttp('control', random.of(['/v2/systemsharedmemory/region/r/register', '/v2/repository/index', '/v2/repository/models/none/load']), mutated(random, corpora.json, true)),
  () => overHttp('compressed', '/v2/models/m/infer', mutated(random, corpora.json, true), { 'content-encoding': random.of(['gzip', 'deflate', 'br', 'x']) }),
  () => overHttp('TFS JSON', `/v1/models/m:${random.of(['predict', 'classify', 'regress'])}`, mutated(random, corpora.tfsJson, true)),
  () => overGrpc('gRPC infer', server.ports.grpc, INFER, frameOf(mutated(random, corpora.grpc, false))),
  () => overGrpc('gRPC TFS', server.ports.tfsGrpc, '/tensorflow.serving.PredictionService/Predict', frameOf(mutated(random, corpora.tfsGrpc, false))),
  () => {
    const message = mutated(random, corpora.grpc, false);
    const flag = random.of([0, 1, 2, 255]);
    return overGrpc('gRPC framing', server.ports.grpc, INFER, frameOf(message, flag, random.below(message.length * 2 + 1)));
  },
  () => overSocket(mutated(random, rawHttp, true)),
]; // prettier-ignore

// Good requests beside them: their answers, exactly.
let harmed = 0;
let good = 0;
let going = true;
const floats = Float32Array.of(1, 2.5, -3, 4);
async function goodOnes() {
  const json = JSON.stringify({ inputs: [{ name: 'x', shape: [2, 2], datatype: 'FP32', data: [...floats] }] });
  while (going) {
    const { status, body } = await ask('POST', '/v2/models/m/infer', json).catch((error) => ({ status: error.message, body: Buffer.alloc(0) }));
    good++;
    const outputs = status === 200 ? JSON.parse(body.toString()).outputs : [];
    if (status !== 200 || outputs[0].data.join() !== floats.join()) {
      harmed++;
      note('good', status, false, () => body.toString().slice(0, 200));
    }
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
} // prettier-ignore
const beside = goodOnes();

let sent = 0;
let reported = performance.now();
async function work() {
  while (sent < COUNT && findings.length < 10) {
    sent++;
    // Sockets of their own are dear: one in fifty.
    const kind = sent % 50 === 0 ? kinds.at(-1) : kinds[random.below(kinds.length - 1)];
    await kind();
    if (performance.now() - reported > 10_000) {
      reported = performance.now();
      console.log(`${sent} of ${COUNT} requests`);
    }
  }
}
const gone = server.exited.then((code) => {
  if (!going) return;
  console.error(`the server ended with ${code}`);
  process.exit(1);
});
await Promise.all(Array.from({ length: CONCURRENT }, work));
going = false;
await beside;
for (const session of Object.values(sessions)) session.destroy();
agent.destroy();
const code = await server.stop();
await gone;
for (const [key, count] of [...seen].sort()) console.log(`${String(count).padStart(8)}  ${key}`);
console.log(
  `${sent} malformed requests, ${good} good ones beside them, ${harmed} of those harmed, seed ${seedText}`,
);
for (const finding of findings) console.error(`FOUND ${finding}`);
process.exit(findings.length > 0 || harmed > 0 || code !== 0 ? 1 : 0);
