// Sockets that read into memory of ours: on every Node that the tests run on they must, or servers are
// slower than they could be and nobody hears of it.
import { once } from 'node:events';
import net, { type AddressInfo } from 'node:net';
import { readInto, scratch, type Reader } from '../../../src/server/http/socket-reads.js';
import { afterEach, expect, it } from 'vitest';

const servers: net.Server[] = [];
afterEach(() => {
  for (const server of servers.splice(0)) server.close();
});

/** Both ends of a connection; the accepted one reads by the reader. */
async function pair(reader: Reader): Promise<{ client: net.Socket; accepted: net.Socket }> {
  const server = net.createServer();
  servers.push(server);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  let accepted: net.Socket | undefined;
  server.on('connection', (socket: net.Socket) => {
    accepted = socket;
    expect(readInto(socket, reader)).toBe(true);
  });
  const client = net.connect((server.address() as AddressInfo).port, '127.0.0.1');
  await Promise.all([once(client, 'connect'), once(server, 'connection')]);
  return { client, accepted: accepted! };
}

async function until(done: () => boolean): Promise<void> {
  while (!done()) await new Promise((resolve) => setTimeout(resolve, 2));
}

it('reads first into the scratch buffer, then where it is told', async () => {
  const body = new Uint8Array(300_000);
  const whole = Uint8Array.from({ length: body.length }, (_, i) => i * 7);
  let head = '';
  let filled = 0;
  const { client, accepted } = await pair({
    place: () => (filled < body.length ? body.subarray(filled) : scratch),
    read: (bytes, buffer) => {
      if (buffer === scratch) head += scratch.toString('latin1', 0, bytes);
      else filled += bytes;
      return true;
    },
  });
  client.write('head');
  await until(() => head === 'head');
  client.write(whole);
  await until(() => filled === whole.length);
  expect(Buffer.compare(body, whole)).toBe(0);
  client.write('tail');
  await until(() => head === 'headtail');
  expect(accepted.bytesRead).toBe(8 + whole.length);
  client.end();
  accepted.resume();
  await once(accepted, 'end');
});

it('stops where it is told, and goes on where it is resumed', async () => {
  let read = 0;
  let goesOn = false;
  const { client, accepted } = await pair({
    place: () => scratch,
    read: (bytes) => {
      read += bytes;
      return goesOn;
    },
  });
  client.write('one');
  await until(() => read === 3);
  client.write('two');
  await new Promise((resolve) => setTimeout(resolve, 50));
  expect(read).toBe(3);
  goesOn = true;
  accepted.resume();
  await until(() => read === 6);
  client.destroy();
  await once(accepted, 'close');
});
