// gRPC as its clients see it, by grpc-js's client and by raw HTTP/2; npm run interop has others' clients.
import http2 from 'node:http2';
import grpc from '@grpc/grpc-js';
import { createGrpcServer } from 'tercel';
import { describe, expect, it } from 'vitest';
import { echo, floats, frame, METHOD, served, slowly, type Fields } from '../../support/grpc.js';
import { PATIENCE_MS } from '../../support/wait.js';

const LIMIT = 1_000_000;

const to = served(LIMIT);

describe('ModelInfer', () => {
  it('answers with id, version, and plans that differ in data only', async () => {
    for (const [values, id] of [
      [[1, 2], 'a'],
      [[3, 4], ''],
      [[5, 6, 7], 'b'],
      [[8, 9], 'c'],
    ] as const) {
      const answer = await to.peer.call('ModelInfer', echo([...values], id));
      expect(answer).toMatchObject({ model_name: 'echo', model_version: '1', id });
      expect(floats(answer)).toEqual(values);
    }
  });

  it('takes a message in any pieces', async () => {
    const whole = frame(to.peer.serialize(echo([1, 2, 3])));
    for (const cut of [1, 4, 5, 6, whole.length - 1]) {
      const { code, body } = await to.peer.raw([whole.subarray(0, cut), whole.subarray(cut)]);
      expect(code).toBe('0');
      expect(body.readUInt32BE(1)).toBe(body.length - 5);
    }
    const bytewise = Array.from(whole, (byte) => Buffer.of(byte)).slice(0, 8);
    const { code } = await to.peer.raw([...bytewise, whole.subarray(8)]);
    expect(code).toBe('0');
  });

  it.each([
    ['no message', [], '3', 'no message'],
    ['a prefix that is cut short', [Buffer.from([0, 0, 0])], '3', 'no message'],
    ['less than the prefix says', [frame(Buffer.from('ab'), 0, 9)], '3', 'its prefix says 9'],
    ['more than the prefix says', [frame(Buffer.from('abcdef'), 0, 2)], '3', 'its prefix says 2'],
    ['two messages', [frame(Buffer.alloc(3)), frame(Buffer.alloc(3))], '3', 'its prefix says 3'],
    ['what is no protocol buffer', [frame(Buffer.from([255, 255]))], '3', 'no protocol buffer'],
    ['more than the limit', [frame(Buffer.alloc(LIMIT + 1))], '8', 'the limit is'],
    ['a length beyond the limit', [frame(Buffer.alloc(9), 0, 0xffffffff)], '8', 'the limit is'],
  ])('refuses %s', async (_name, parts, code, message) => {
    const answer = await to.peer.raw([...parts]);
    expect(answer.message).toContain(message);
    expect(answer.code).toBe(code);
  });

  it('leaves what is not plain to grpc-js', async () => {
    const message = frame(to.peer.serialize(echo([1])));
    expect((await to.peer.raw([message], { 'grpc-timeout': 'soon' })).code).not.toBe('0');
    expect((await to.peer.raw([message], { 'grpc-timeout': '5S' })).code).toBe('0');
    expect((await to.peer.raw([message], { 'content-type': 'application/grpc+proto' })).code).toBe(
      '0',
    );
    const gzipped = { 'grpc.default_compression_algorithm': 2 };
    const other = new grpc.Client(
      `127.0.0.1:${to.peer.port}`,
      grpc.credentials.createInsecure(),
      gzipped,
    );
    const same = (bytes: Buffer): Buffer => bytes;
    const answer = await new Promise<Buffer>((resolve, reject) => {
      other.makeUnaryRequest(METHOD, same, same, to.peer.serialize(echo([7])), (error, bytes) => {
        if (error) reject(error);
        else resolve(bytes!);
      });
    });
    expect(answer.length).toBeGreaterThan(10);
    other.close();
  });

  it('says what is wrong', async () => {
    await expect(
      to.peer.call('ModelInfer', { ...echo([1]), model_name: 'nobody' }),
    ).rejects.toMatchObject({
      code: grpc.status.NOT_FOUND,
      details: 'model "nobody" does not exist',
    });
    await expect(
      to.peer.call('ModelInfer', { ...echo([1]), model_version: '9' }),
    ).rejects.toMatchObject({
      code: grpc.status.NOT_FOUND,
    });
  });

  it('survives paths that are no methods but of every object', async () => {
    for (const path of ['__proto__', 'constructor', 'toString']) {
      await new Promise<void>((resolve) => {
        const session = http2.connect(`http://127.0.0.1:${to.peer.port}`);
        session.on('error', () => {});
        const stream = session.request({
          ':method': 'POST',
          ':scheme': 'ftp', // which lets a path begin with anything
          ':path': path,
          'content-type': 'application/grpc',
        });
        stream.on('error', () => {});
        stream.on('close', () => {
          session.close();
          resolve();
        });
        stream.end(Buffer.alloc(5));
        setTimeout(() => stream.close(), 200);
      });
    }
    expect(floats(await to.peer.call('ModelInfer', echo([1])))).toEqual([1]);
  });

  it('answers in a header of its size, whatever a name is', async () => {
    const answer = await to.peer
      .call('ModelInfer', {
        ...echo([1]),
        model_name: 'm'.repeat(300_000),
      })
      .catch((error: grpc.ServiceError) => error);
    expect(answer).toMatchObject({ code: grpc.status.NOT_FOUND });
    expect((answer as grpc.ServiceError).details.length).toBeLessThan(3000);
    // The connection lives on.
    expect(floats(await to.peer.call('ModelInfer', echo([2])))).toEqual([2]);
  });

  it('says the same twice of an input without elements and without contents', async () => {
    const request = { ...echo([]), inputs: [{ name: 'x', datatype: 'FP32', shape: [0, 1] }] };
    for (let i = 0; i < 3; i++) {
      for (const raw_input_contents of [[], [Buffer.alloc(0)]]) {
        const answer = await to.peer.call('ModelInfer', { ...request, raw_input_contents });
        expect(floats(answer)).toEqual([]);
      }
    }
  });

  it('refuses an input of a name that every object has', async () => {
    const [x] = echo([1])['inputs'] as Fields[];
    for (const name of ['__proto__', 'constructor']) {
      const request = { ...echo([1]), inputs: [x, { ...x, name }] };
      const data = Buffer.alloc(4);
      await expect(
        to.peer.call('ModelInfer', { ...request, raw_input_contents: [data, data] }),
      ).rejects.toMatchObject({ details: expect.stringContaining(`"${name}" does not exist`) });
    }
  });

  it('ends a run whose deadline passes or whose client gives up, and nobody else', async () => {
    await expect(
      to.peer.call('ModelInfer', slowly(10_000_000n), { deadline: Date.now() + 100 }),
    ).rejects.toMatchObject({ code: grpc.status.DEADLINE_EXCEEDED });
    const given: grpc.ClientUnaryCall[] = [];
    const ends = Array.from({ length: 4 }, () => {
      return new Promise<number>((resolve) => {
        const request = slowly(10_000_000n);
        given.push(to.peer.client['ModelInfer']!(request, {}, (error) => resolve(error!.code)));
      });
    });
    // Quick ones beside them take and free slots all the time: none of them may be hit.
    const quick = Array.from({ length: 200 }, (_, i) => to.peer.call('ModelInfer', echo([i])));
    setTimeout(() => given.forEach((one) => one.cancel()), 50);
    expect(await Promise.all(ends)).toEqual(Array(4).fill(grpc.status.CANCELLED));
    const answers = await Promise.all(quick);
    expect(answers.map((answer) => floats(answer)[0])).toEqual(answers.map((_, i) => i));
    await to.peer.call('ModelInfer', slowly(1n), { deadline: Date.now() + PATIENCE_MS });
  });

  it('aborts no other call when one that is over closes', async () => {
    // A slot is free again when its run is over; the close of its stream comes later.
    for (let round = 0; round < 20; round++) {
      const long = to.peer.call('ModelInfer', slowly(300n));
      const quick = Array.from({ length: 20 }, (_, i) => to.peer.call('ModelInfer', echo([i])));
      await Promise.all([long, ...quick]);
    }
  });
});

it('says where it cannot listen', async () => {
  const second = createGrpcServer(to.engine);
  await expect(second.listen({ port: to.peer.port })).rejects.toThrow(
    `gRPC cannot listen at 127.0.0.1:${to.peer.port}: listen EADDRINUSE`,
  );
  await second.close();
});

describe('the control methods', () => {
  it('are for who has the token', async () => {
    const closed = createGrpcServer(to.engine, { adminToken: 'secret' });
    const other = new grpc.Client(
      `127.0.0.1:${await closed.listen({ port: 0 })}`,
      grpc.credentials.createInsecure(),
    );
    const same = (bytes: Buffer): Buffer => bytes;
    const index = (token?: string): Promise<number> =>
      new Promise((resolve) => {
        const metadata = new grpc.Metadata();
        if (token) metadata.set('authorization', `Bearer ${token}`);
        const path = '/inference.GRPCInferenceService/RepositoryIndex';
        other.makeUnaryRequest(path, same, same, Buffer.alloc(0), metadata, (error) =>
          resolve(error?.code ?? 0),
        );
      });
    expect(await index()).toBe(grpc.status.UNAUTHENTICATED);
    expect(await index('wrong')).toBe(grpc.status.UNAUTHENTICATED);
    expect(await index('secret')).toBe(0);
    other.close();
    await closed.close();
    expect(() => createGrpcServer(to.engine, { adminToken: '' })).toThrow('adminToken');
  });

  it('say that shared memory is off', async () => {
    await expect(
      to.peer.call('SystemSharedMemoryRegister', { name: 'r', key: '/k', byte_size: 1 }),
    ).rejects.toMatchObject({
      code: grpc.status.INVALID_ARGUMENT,
      details: expect.stringContaining('without --allow-shared-memory') as string,
    });
  });
});
