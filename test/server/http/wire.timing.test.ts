// Connections below HTTP: what must not take long.
import { once } from 'node:events';
import net, { type AddressInfo } from 'node:net';
import { describe, expect, it } from 'vitest';
import { modelOf } from '../../support/models.js';
import { all, connect, next, request, servers, slowRequest } from '../../support/wire.js';

const served = servers();
const { apps, serve } = served;

describe('the wire', () => {
  it('closes when it is told to: the idle at once, the busy after their answer', async () => {
    const app = await serve();
    const [unused, idle, busy] = [await connect(app), await connect(app), await connect(app)];
    idle.write(request());
    await next(idle, 1);
    busy.write(slowRequest(2000n, { binary_data_output: true }));
    const answers = all(busy);
    const model = modelOf(served.engine, 'slow');
    while (model.stats().running === 0) await new Promise((resolve) => setTimeout(resolve, 1));
    const ends = Promise.all([once(unused.resume(), 'end'), once(idle.resume(), 'end')]);
    const started = performance.now();
    await app.close();
    expect(performance.now() - started).toBeLessThan(5000);
    await ends;
    const [answer] = await answers;
    expect([answer!.status, answer!.headers['connection']]).toEqual([200, 'close']);
    apps.pop();
  });

  it('reads the worst of heads quickly', async () => {
    const app = await serve();
    const spaces = ' '.repeat(15_000);
    for (const header of [`X:${spaces}\x01`, `X:${spaces}y${spaces}`, `X:${'\t'.repeat(15_000)}`]) {
      const socket = await connect(app);
      const answers = all(socket);
      const started = performance.now();
      socket.write(request({ headers: [header, 'Connection: close'] }));
      expect([200, 400, 431]).toContain((await answers)[0]!.status);
      expect(performance.now() - started).toBeLessThan(2000);
    }
  });

  it('closes while a client is slow to read, and while others connect', async () => {
    const app = await serve();
    const slowReader = await connect(app);
    slowReader.pause();
    slowReader.write(request({ rows: 500_000 }));
    while (app.hotRequests < 1) await new Promise((resolve) => setTimeout(resolve, 5));
    await new Promise((resolve) => setTimeout(resolve, 100));
    const closing = app.close();
    const late = net.connect({
      host: '127.0.0.1',
      port: (app.server.address() as AddressInfo).port,
    });
    late.on('error', () => {});
    const answers = all(slowReader);
    const started = performance.now();
    await closing;
    expect(performance.now() - started).toBeLessThan(5000);
    expect((await answers).map(({ status }) => status)).toEqual([200]);
    late.destroy();
    apps.pop();
  });
});
