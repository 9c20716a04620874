// Connections below HTTP: whatever bytes come, in whatever pieces, a client sees what it would see of
// Node's HTTP server and Fastify.
import { once } from 'node:events';
import http from 'node:http';
import net from 'node:net';
import type { AddressInfo } from 'node:net';
import { stats } from 'tercel';
import { describe, expect, it } from 'vitest';
import { until } from '../../support/wait.js';
import { modelOf } from '../../support/models.js';
import {
  all,
  closing,
  connect,
  first,
  INFER,
  next,
  request,
  servers,
  slowRequest,
} from '../../support/wire.js';

const served = servers();
const { serve } = served;

describe('the wire', () => {
  it('answers request after request on one connection', async () => {
    const app = await serve();
    const socket = await connect(app);
    for (let i = 0; i < 20; i++) {
      socket.write(request({ value: i }));
      const [answer] = await next(socket, 1);
      expect(answer!.status).toBe(200);
      expect(first(answer!)).toBe(i);
      expect(answer!.headers).toMatchObject({
        'content-type': 'application/octet-stream',
        connection: 'keep-alive',
        'keep-alive': 'timeout=72',
      });
      expect(Math.abs(Date.parse(answer!.headers['date']!) - Date.now())).toBeLessThan(3000);
    }
    socket.destroy();
    expect(app.hotRequests).toBe(20);
  });

  it('takes bodies in pieces, cut anywhere behind the head', async () => {
    const app = await serve();
    const bytes = request({ rows: 3, value: 7 });
    const head = bytes.indexOf('\r\n\r\n') + 4;
    const socket = await connect(app);
    for (let cut = head; cut < bytes.length; cut += 5) {
      socket.write(bytes.subarray(0, cut));
      await new Promise((resolve) => setTimeout(resolve, 1));
      socket.write(bytes.subarray(cut));
      const [answer] = await next(socket, 1);
      expect([answer!.status, first(answer!)]).toEqual([200, 7]);
    }
    expect(app.hotRequests).toBeGreaterThan(20);
    socket.destroy();
  });

  it('gives a connection to Node where the head comes in pieces, and all is answered', async () => {
    const app = await serve();
    const bytes = Buffer.concat([request({ value: 1 }), request({ value: 2, ...closing })]);
    const head = bytes.indexOf('\r\n\r\n') + 4;
    for (let cut = 1; cut < head; cut += 17) {
      const socket = await connect(app);
      const answers = all(socket);
      socket.write(bytes.subarray(0, cut));
      await new Promise((resolve) => setTimeout(resolve, 1));
      socket.write(bytes.subarray(cut));
      expect((await answers).map(first)).toEqual([1, 2]);
    }
  });

  it('reads the numbers of requests in a batch, and fails only the one that has none', async () => {
    const app = await serve();
    const { port } = app.server.address() as AddressInfo;
    const body = (data: string): string =>
      `{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":${data}}]}`;
    const at = body('[1, 2e]').indexOf('2e');
    const agent = new http.Agent({ keepAlive: true });
    // Not fetch(), which asks for an encoding and so for Fastify.
    const ask = async (data: string): Promise<[number, string]> => {
      const text = body(data);
      const asked = http.request({ agent, port, host: '127.0.0.1', path: INFER, method: 'POST' });
      asked.setHeader('content-length', text.length);
      asked.end(text);
      const [answer] = (await once(asked, 'response')) as [http.IncomingMessage];
      const chunks = await answer.toArray();
      return [answer.statusCode!, Buffer.concat(chunks as Buffer[]).toString()];
    };
    await ask('[0, 0]'); // from here on the request is known but for its numbers
    const before = app.hotRequests;
    for (let round = 0; round < 20; round++) {
      const answers = await Promise.all(
        [0, 1, 2, 3, 4, 5, 6, 7].map((i) => ask(i === 5 ? '[1, 2e]' : `[${i}.5, -${round}e-3]`)),
      );
      answers.forEach(([status, text], i) => {
        if (i === 5) {
          expect([status, text]).toEqual([
            400,
            `{"error":"input \\"x\\": element 1 of data, 2e, is no FP32 (byte ${at})"}`,
          ]);
        } else {
          const { outputs } = JSON.parse(text) as { outputs: [{ data: number[] }] };
          expect([status, outputs[0].data]).toEqual([200, [i + 0.5, round ? -round / 1000 : -0]]);
        }
      });
    }
    expect(app.hotRequests - before).toBe(160);
    agent.destroy();
  });

  it('takes large bodies and answers, many rows in one', async () => {
    const app = await serve({ bodyLimitBytes: 8 << 20 });
    const socket = await connect(app);
    for (const rows of [1000, 10_000, 100_000, 500_000]) {
      socket.write(request({ rows, value: rows }));
      const [answer] = await next(socket, 1);
      expect(answer!.status).toBe(200);
      const at = Number(answer!.headers['inference-header-content-length']);
      expect(answer!.body.length - at).toBe(rows * 8);
      expect(answer!.body.readFloatLE(answer!.body.length - 4)).toBe(rows);
    }
    expect(app.hotRequests).toBe(4);
    socket.destroy();
  });

  it('takes the memory of a large body again for the next, once it is answered', async () => {
    const app = await serve({ bodyLimitBytes: 8 << 20 });
    const sockets = await Promise.all([connect(app), connect(app)]);
    const ask = async (socket: net.Socket, value: number): Promise<void> => {
      socket.write(request({ rows: 10_000, value }));
      const [answer] = await next(socket, 1);
      const { body, headers } = answer!;
      const floats = body.subarray(Number(headers['inference-header-content-length']));
      expect(floats.equals(Buffer.from(new Float32Array(20_000).fill(value).buffer))).toBe(true);
    };
    const round = (i: number): Promise<unknown> =>
      Promise.all(sockets.map((socket, k) => ask(socket, 2 * i + k)));
    await round(0);
    const before = stats().arena.allocations;
    for (let i = 1; i <= 40; i++) await round(i);
    // The outputs' memory, and that of a body now and then.
    expect(stats().arena.allocations - before).toBeLessThan(120);
    for (const socket of sockets) socket.destroy();
  });

  it('answers what is sent ahead in its order, small and large', async () => {
    const app = await serve();
    const values = Array.from({ length: 50 }, (_, i) => i);
    const bytes = Buffer.concat([
      ...values.map((value) => request({ value, rows: value % 7 === 0 ? 20_000 : 1 })),
      request({ value: 50, ...closing }),
    ]);
    const socket = await connect(app);
    const answers = all(socket);
    socket.write(bytes);
    expect((await answers).map(first)).toEqual([...values, 50]);
    expect(app.hotRequests).toBe(51);
  });

  it('waits for a client that does not read', async () => {
    const app = await serve();
    const socket = await connect(app);
    socket.pause();
    const count = 60;
    for (let i = 0; i < count; i++) socket.write(request({ value: i, rows: 50_000 }));
    socket.write(request({ value: count, ...closing }));
    await new Promise((resolve) => setTimeout(resolve, 300));
    const answered = app.hotRequests;
    expect(answered).toBeLessThan(count); // 24 MB do not wait in the server
    const answers = await all(socket);
    expect(answers.map(first)).toEqual(Array.from({ length: count + 1 }, (_, i) => i));
  });

  it('answers anything as Node and Fastify do', async () => {
    const json = '{"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}]}';
    const post = (...headers: string[]): string =>
      [`POST ${INFER} HTTP/1.1`, 'Host: a', ...headers, '', ''].join('\r\n');
    const plain = request().toString('latin1');
    const cases: Record<string, Buffer | string> = {
      'GET, then infer': `GET /v2/health/live HTTP/1.1\r\nHost: a\r\n\r\n${plain}`,
      JSON: post('Content-Type: application/json', `Content-Length: ${json.length}`) + json,
      chunked: `${post('Transfer-Encoding: chunked')}${json.length.toString(16)}\r\n${json}\r\n0\r\n\r\n`,
      'both lengths and chunked': request({ headers: ['Transfer-Encoding: chunked'] }),
      'Content-Length twice': request({ headers: ['Content-Length: 5'] }),
      'JSON length twice': request({ headers: ['Inference-Header-Content-Length: 5'] }),
      'no Host': plain.replace('Host: localhost\r\n', ''),
      'Host twice': request({ headers: ['Host: b'] }),
      'HTTP/1.0': request({ lead: `POST ${INFER} HTTP/1.0` }),
      'HTTP/3.7': request({ lead: `POST ${INFER} HTTP/3.7` }),
      'no such model': request({ url: '/v2/models/none/infer' }),
      'no such version': request({ url: '/v2/models/echo/versions/9/infer' }),
      'its version': request({ url: '/v2/models/echo/versions/1/infer' }),
      'a path in percent': request({ url: '/v2/models/%65cho/infer' }),
      'bad percent': request({ url: '/v2/models/%ZZ/infer' }),
      'a query': request({ url: `${INFER}?a=b` }),
      'an absolute target': request({ url: `http://localhost${INFER}` }),
      'another method': request({ lead: `PUT ${INFER} HTTP/1.1` }),
      'no method': request({ lead: INFER }),
      'bare line feeds': plain.replaceAll('\r\n', '\n'),
      'a folded header': plain.replace('Host: localhost\r\n', 'Host: localhost\r\n folded\r\n'),
      'a space before the colon': plain.replace('Host:', 'Host :'),
      'a zero byte': request({ headers: ['X: a\0b'] }),
      'a wrong length': plain.replace(/Content-Length: \d+\r\n\r\n/, 'Content-Length: x\r\n\r\n'),
      'a negative length': plain.replace(
        /Content-Length: \d+\r\n\r\n/,
        'Content-Length: -1\r\n\r\n',
      ),
      'a JSON length beyond the body': request({ headers: [] })
        .toString('latin1')
        .replace(/(Header-Content-Length: )\d+/, '$19999'),
      'a JSON length of 0': plain.replace(/(Header-Content-Length: )\d+/, '$10'),
      'over the limit': post('Inference-Header-Content-Length: 5', 'Content-Length: 99999999'),
      'headers without end': `POST ${INFER} HTTP/1.1\r\nHost: a\r\nX: ${'x'.repeat(20_000)}\r\n`,
      'a long header': request({ headers: [`X: ${'x'.repeat(8000)}`] }),
      'a line before it': `\r\n${plain}`,
      rubbish: 'rubbish\r\n\r\n',
      'bytes from a TLS client': Buffer.from([0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]),
      'an upgrade': request({ headers: ['Connection: Upgrade', 'Upgrade: websocket'] }),
      'options in Connection': request({ headers: ['Connection: keep-alive, TE'] }),
      gzip: request({ rows: 1000, headers: ['Accept-Encoding: gzip'] }),
      'Expect: 100-continue': request({ headers: ['Expect: 100-continue'] }),
      'Expect: magic': request({ headers: ['Expect: magic'] }),
      'values with spaces': request({ headers: ['X:   y  ', 'Y:', 'Z:\tq\t'] }),
      'values beyond ASCII': request({ headers: ['X: gr\xfc\xdf'] }),
    };
    const seen: Record<string, unknown>[] = [];
    for (const hotRoute of [true, false]) {
      const app = await serve({ hotRoute, bodyLimitBytes: 1_000_000 });
      const results: Record<string, unknown> = {};
      for (const [name, bytes] of Object.entries(cases)) {
        const socket = await connect(app);
        const answers = all(socket);
        // Behind each one that an ordinary client would see answered.
        socket.write(bytes);
        socket.write(request({ value: 8, ...closing }));
        const quiet = setTimeout(() => socket.end(), 500);
        results[name] = (await answers).map(({ status, headers, body }) => [
          status,
          headers['content-type'],
          headers['connection'],
          body.toString('latin1'),
        ]);
        clearTimeout(quiet);
      }
      seen.push(results);
    }
    expect(seen[0]).toEqual(seen[1]);
    // And that is what it ought to be.
    const statuses = (name: string): unknown[] =>
      (seen[0]![name] as unknown[][]).map(([status]) => status);
    expect(statuses('GET, then infer')).toEqual([200, 200, 200]);
    expect(statuses('JSON')).toEqual([200, 200]);
    expect(statuses('both lengths and chunked')).toEqual([400]);
    expect(statuses('Content-Length twice')).toEqual([400]);
    expect(statuses('no Host')).toEqual([400]);
    expect(statuses('no such model')).toEqual([404, 200]);
    expect(statuses('values with spaces')).toEqual([200, 200]);
    expect(statuses('headers without end')).toEqual([431]);
  });

  it('goes on after a request that was wrong', async () => {
    const app = await serve();
    const wrong = request()
      .toString('latin1')
      .replace(/(Header-Content-Length: )\d+/, '$110');
    const socket = await connect(app);
    const answers = all(socket);
    socket.write(Buffer.concat([Buffer.from(wrong, 'latin1'), request(closing)]));
    expect((await answers).map(({ status }) => status)).toEqual([400, 200]);
    expect(app.hotRequests).toBe(2);
  });

  it('ends the run of a client that goes away, at whatever point', async () => {
    const app = await serve();
    const model = modelOf(served.engine, 'slow');
    const before = model.stats().cancelled;
    const bytes = request({ rows: 1000 });
    for (const cut of [0, 10, 200, bytes.length - 1]) {
      const socket = await connect(app);
      socket.write(bytes.subarray(0, cut));
      socket.resetAndDestroy();
    }
    const socket = await connect(app);
    socket.write(slowRequest(1n << 40n));
    while (model.stats().running === 0) await new Promise((resolve) => setTimeout(resolve, 1));
    socket.resetAndDestroy();
    while (model.stats().running > 0) await new Promise((resolve) => setTimeout(resolve, 1));
    expect(model.stats().cancelled).toBe(before + 1);
    const other = await connect(app);
    other.write(request({ ...closing }));
    expect((await all(other)).map(({ status }) => status)).toEqual([200]);
  });

  it('ends connections that nobody uses', async () => {
    const app = await serve();
    app.server.keepAliveTimeout = 1000;
    const [unused, used] = [await connect(app), await connect(app)];
    used.write(request());
    const [answer] = await next(used, 1);
    expect(answer!.headers['keep-alive']).toBe('timeout=1');
    await Promise.all([once(unused.resume(), 'end'), once(used.resume(), 'end')]);
  });

  it('takes a connection that somebody looked at first', async () => {
    const app = await serve();
    const door = net.createServer((socket) => {
      socket.once('data', (first) => {
        socket.pause();
        socket.unshift(first);
        app.server.emit('connection', socket);
        socket.resume();
      });
    });
    door.listen(0, '127.0.0.1');
    await once(door, 'listening');
    const socket = net.connect((door.address() as AddressInfo).port, '127.0.0.1');
    let answered = '';
    socket.on('data', (chunk: Buffer) => (answered += chunk.toString('latin1')));
    for (let i = 1; i <= 3; i++) {
      socket.write(request());
      await until(() => answered.split('200 OK').length === i + 1);
    }
    socket.destroy();
    door.close();
  });

  it('gives a connection away for good: another protocol has every byte both ways', async () => {
    const app = await serve();
    const received: Buffer[] = [];
    let bytes = 0;
    app.server.on('upgrade', (_request, socket, head: Buffer) => {
      socket.write('HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n');
      if (head.length > 0) socket.unshift(head);
      socket.on('data', (chunk: Buffer) => {
        bytes += chunk.length;
        received.push(chunk);
        // Slower than it comes: reading stops and goes on.
        socket.pause();
        setTimeout(() => socket.resume(), 1);
      });
      socket.on('end', () => socket.end(`${bytes}`));
    });
    const socket = await connect(app);
    let answered = '';
    socket.on('data', (chunk: Buffer) => (answered += chunk.toString('latin1')));
    socket.write(request()); // on the wire first
    await until(() => answered.includes('200 OK'));
    socket.write('GET /x HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n');
    await until(() => answered.includes('101 Switching'));
    const sent = Buffer.from(Uint8Array.from({ length: 3_000_000 }, (_, i) => i * 31));
    socket.end(sent);
    await once(socket, 'close');
    expect(answered.endsWith(String(sent.length))).toBe(true);
    expect(Buffer.concat(received).equals(sent)).toBe(true);
  });

  it('leaves every request to Node where somebody listens for requests', async () => {
    const app = await serve();
    let seen = 0;
    app.server.on('request', () => seen++);
    const socket = await connect(app);
    socket.write(Buffer.concat([request(), request(closing)]));
    expect((await all(socket)).map(({ status }) => status)).toEqual([200, 200]);
    expect(seen).toBe(2);
  });
});
