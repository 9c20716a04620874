// The walk-throughs of docs/architecture.md, tried: each is what the page says, and no more.
import { readFileSync } from 'node:fs';
import net from 'node:net';
import { createInterface } from 'node:readline';
import {
  createEngine,
  TercelError,
  type Engine,
  type Servable,
  type Tensor,
  type Values,
} from 'tercel';
// A transport and a codec are parts of the server: what they are made of is not the package's surface.
import { contextOf } from '../../dist/serving/context.js';
import { Exchange, type ExchangeContext } from '../../dist/serving/exchange.js';
import { planFor, type Plan } from '../../dist/protocol/plan.js';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { identity } from '../support/models.js';

let engine: Engine;
beforeAll(async () => {
  engine = createEngine();
  await engine.load('echo', identity(1, ['n']));
});
afterAll(() => engine.close());

const x = { dtype: 'float32', shape: [3], data: Float32Array.of(1, 2, 3) } as const;

describe('docs/architecture.md', () => {
  it('has the code that is tried here', () => {
    const squeeze = (text: string): string => text.replace(/\s+/g, ' ');
    const page = readFileSync(new URL('../../docs/architecture.md', import.meta.url), 'utf8');
    const here = squeeze(readFileSync(new URL(import.meta.url), 'utf8'));
    const blocks = [...page.matchAll(/```ts\n([\s\S]*?)```/g)].map(([, code]) => squeeze(code!));
    expect(blocks.length).toBe(4);
    for (const block of blocks) expect(here).toContain(block.trim());
  });
});

describe('an interceptor', () => {
  it('counts outcomes and refuses strangers', async () => {
    const counts = new Map<string, number>();
    const remove = engine.use({
      name: 'tenants',
      kinds: ['infer'],
      headers: ['x-tenant'],
      enter(exchange) {
        if (exchange.peer.inProcess || exchange.header('x-tenant')) return;
        throw new TercelError('UNAUTHENTICATED', 'send the header X-Tenant');
      },
      end({ outcome }) {
        counts.set(outcome!, (counts.get(outcome!) ?? 0) + 1);
      },
    });
    await engine.infer('echo', { x });
    await expect(engine.infer('nope', { x })).rejects.toThrow('does not exist');
    remove();
    expect([...counts]).toEqual([
      ['OK', 1],
      ['NOT_FOUND', 1],
    ]);
  });
});

describe('a servable', () => {
  it('stands around another one', async () => {
    const negated = (inner: Servable): Servable => ({
      name: `not-${inner.name}`,
      version: inner.version,
      inputs: inner.inputs,
      outputs: inner.outputs,
      accepts: inner.accepts,
      prepare: (outputs) => inner.prepare?.(outputs),
      start(prepared, inputs, call, reply) {
        return inner.start(prepared, inputs, call, {
          onDrain: undefined,
          part: (values) => reply.part(values),
          fail: (error) => reply.fail(error),
          answer: (values = {}) => reply.answer(negate(values)),
        });
      },
    });
    const negate = (values: Values): Values =>
      Object.fromEntries(
        Object.entries(values).map(([name, value]) => {
          const { shape, data } = value as Tensor<'float32'>;
          return [name, { dtype: 'float32', shape, data: data.map((number) => -number) }];
        }),
      );
    engine.register(negated(engine.find('echo')!));
    const { y } = await engine.infer('not-echo', { x });
    expect([...(y!.data as Float32Array)]).toEqual([-1, -2, -3]);
  });
});

// A codec: `echo 1 2 3` asks a model of one input for one output.
class LineCodec {
  read(into: { id: string; plan: Plan | undefined }, line: string): [string, Values] {
    const [model = '', ...words] = line.split(' ');
    const data = Float32Array.from(words, Number);
    into.plan = planFor({});
    return [model, { x: { dtype: 'float32', shape: [data.length], data } }];
  }

  write(values: Values): string {
    const { data } = Object.values(values)[0] as Tensor<'float32'>;
    return data.join(' ');
  }
}

// A transport: sockets in, exchanges out.
class LineExchange extends Exchange {
  readonly codec = new LineCodec();
  readonly socket: net.Socket;
  // Typed arrays of this process, not bytes of a body.
  override readonly from = 'program';

  constructor(context: ExchangeContext, socket: net.Socket) {
    const address = socket.remoteAddress ?? '';
    super(context, 'infer', { address, loopback: true, tls: false, inProcess: false });
    this.socket = socket;
    socket.once('close', () => this.gone());
  }

  get operation(): string {
    return `line ${this.model}`;
  }

  run(line: string): void {
    try {
      const [model, inputs] = this.codec.read(this, line);
      this.begin(this.find(model), inputs);
    } catch (error) {
      this.fail(error);
    }
  }

  protected override write(values: Values): void {
    this.socket.write(`${this.codec.write(values)}\n`);
  }

  protected override writeError({ code, message }: TercelError): void {
    this.socket.write(`${code}: ${message}\n`);
  }
}

function serveLines(engine: Engine): net.Server {
  const { context, close } = contextOf(engine, {});
  const server = net.createServer((socket) => {
    socket.on('error', () => {});
    createInterface(socket).on('line', (line) => {
      const exchange = new LineExchange(context, socket);
      const waiting = exchange.enter();
      if (!waiting && !exchange.settled) exchange.run(line);
      void waiting?.then(() => exchange.settled || exchange.run(line));
    });
  });
  return server.on('close', close);
}

describe('a codec and a transport', () => {
  it('serve a protocol of lines', async () => {
    const outcomes: (string | undefined)[] = [];
    const remove = engine.use({ name: 'all', end: ({ outcome }) => void outcomes.push(outcome) });
    const server = serveLines(engine).listen(0, '127.0.0.1');
    await new Promise((resolve) => server.once('listening', resolve));
    const socket = net.connect((server.address() as net.AddressInfo).port, '127.0.0.1');
    const lines = createInterface(socket)[Symbol.asyncIterator]();
    const ask = async (line: string): Promise<unknown> => {
      socket.write(`${line}\n`);
      return (await lines.next()).value as unknown;
    };
    expect(await ask('echo 1 2.5 -3')).toBe('1 2.5 -3');
    expect(await ask('nope 1')).toBe('NOT_FOUND: model "nope" does not exist');
    const refusal = engine.use({
      name: 'closed',
      enter: async () => {
        await Promise.resolve();
        throw new TercelError('QUOTA', 'come again tomorrow');
      },
    });
    expect(await ask('echo 1')).toBe('QUOTA: come again tomorrow');
    refusal();
    remove();
    expect(outcomes).toEqual(['OK', 'NOT_FOUND', 'QUOTA']);
    socket.destroy();
    await new Promise((resolve) => server.close(resolve));
  });
});
