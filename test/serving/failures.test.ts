// Whatever goes wrong is the same error by every transport: rows of failures, columns of transports. Each cell
// runs for real: what the client is told, what interceptors see, and what is counted.
import { mkdtempSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import {
  createEngine,
  TercelError,
  type Engine,
  type ErrorCode,
  type ExchangeInfo,
  type ModelServable,
  type Servable,
  type Tensor,
} from 'tercel';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { encodeModel, FLOAT, floats } from '../../models/onnx.js';
import { slow } from '../support/models.js';
import { Transports, type Ask, type Told, type Transport } from '../support/transports.js';
import { until } from '../support/wait.js';

/** What each error is in HTTP and gRPC: written down here once more, from the documents. */
const CODES: Partial<Record<ErrorCode, [http: number, grpc: number]>> = {
  INVALID_INPUT: [400, 3],
  DENIED: [403, 7],
  NOT_FOUND: [404, 5],
  INTERNAL: [500, 13],
  OVERLOAD: [503, 14],
  UNAVAILABLE: [503, 14],
  TIMEOUT: [504, 4],
};

const float = (shape: number[], fill = 1): Tensor => ({
  dtype: 'float32',
  shape,
  data: new Float32Array(shape.reduce((product, dim) => product * dim, 1)).fill(fill),
});
const long = (value: number): Tensor => ({
  dtype: 'int64',
  shape: [],
  data: BigInt64Array.of(BigInt(value)),
});

/** y = a + b. */
function sum(): Uint8Array {
  const type = { tensor: FLOAT, shape: ['n', 2] };
  return encodeModel({
    name: 'sum',
    inputs: { a: type, b: type },
    outputs: { y: type },
    nodes: [{ op: 'Add', inputs: ['a', 'b'], outputs: ['y'] }],
  });
}

/** y = x w, a w of three rows: that x has three columns is not declared, and noticed in the run. */
function product(): Uint8Array {
  return encodeModel({
    name: 'product',
    inputs: { x: { tensor: FLOAT, shape: ['n', 'm'] } },
    outputs: { y: { tensor: FLOAT, shape: ['n', 2] } },
    initializers: [floats('w', [3, 2], new Float32Array(6)), floats('c', [2], new Float32Array(2))],
    nodes: [{ op: 'Gemm', inputs: ['x', 'w', 'c'], outputs: ['y'] }],
  });
}

const FOREVER = 2 ** 40;
const lasting = { x: float([64, 64], 0.01), rounds: long(FOREVER) };
const both = { a: float([1, 2]), b: float([1, 2]) };

let folder: string;
let engine: Engine;
let transports: Transports;
/** What interceptors saw last. */
let seen: ExchangeInfo | undefined;
let ended = 0;
/** What `enter` waits for, or throws. */
let gate: Promise<void> | undefined;
let refusal: Error | undefined;

beforeAll(async () => {
  folder = mkdtempSync(path.join(os.tmpdir(), 'tercel-failures-'));
  // A deadline for protocols whose requests cannot say one.
  for (const [name, more] of [
    ['slow', {}],
    ['hasty', { timeoutMs: 100 }],
  ] as const) {
    mkdirSync(path.join(folder, name, '1'), { recursive: true });
    writeFileSync(path.join(folder, name, '1', 'model.onnx'), slow());
    const config = { lanes: 1, maxQueue: 1, batching: { maxBatch: 1 }, warmUp: false, ...more };
    writeFileSync(path.join(folder, name, 'model.json'), JSON.stringify(config));
  }
  engine = createEngine();
  await engine.loadRepository(folder, { strict: true });
  await engine.load('sum', sum());
  await engine.load('product', product(), { batching: { maxBatch: 1 } });
  const bad: Servable = {
    name: 'bad',
    version: '1',
    inputs: [{ name: 'a', dtype: 'float32', shape: ['n', 2] }],
    outputs: [{ name: 'y', dtype: 'float32', shape: ['n', 2] }],
    accepts: 'tensors',
    start() {
      throw new Error('a secret of the server');
    },
  };
  engine.register(bad);
  engine.use({
    name: 'recorder',
    enter(exchange) {
      if (exchange.kind !== 'infer') return undefined;
      seen = exchange;
      if (refusal) throw refusal;
      return gate;
    },
    end: ({ kind }) => {
      if (kind === 'infer') ended++;
    },
  });
  transports = await Transports.open(engine);
});

afterAll(async () => {
  await transports.close();
  await engine.close();
  rmSync(folder, { recursive: true });
});

/** Failed requests of a model, as its statistics have them, and of no model. */
async function counted(model: string): Promise<{ failed: number; unmatched: number }> {
  const response = await fetch(`http://127.0.0.1:${transports.port}/v2/models/${model}/stats`);
  const { model_stats: list = [] } = (await response.json()) as {
    model_stats?: { inference_stats: { fail: { count: number } } }[];
  };
  const failed = list.reduce((all, { inference_stats: s }) => all + s.fail.count, 0);
  const unmatched = Object.values(engine.stats().unmatched).reduce((all, n) => all + n, 0);
  return { failed, unmatched };
}

interface Expected {
  readonly code: ErrorCode;
  readonly words: string | RegExp;
  /** Counted as the server's, not the model's. */
  readonly unmatched?: boolean;
}

const words = (expected: string | RegExp): RegExp | string =>
  typeof expected === 'string' ? expected : (expect.stringMatching(expected) as string);

function expectTold(transport: Transport, told: Told, { code, words: text }: Expected): void {
  const [http, grpc] = CODES[code]!;
  const codes = { http, grpc, error: code, none: undefined };
  expect([told.code, told.words]).toEqual([codes[transport.codes], words(text)]);
  if (transport.codes === 'http' && http === 503) expect(told.headers['retry-after']).toBe('1');
  expect([seen?.outcome, seen?.error?.message]).toEqual([code, words(text)]);
}

/** Asks, and sees what is told and counted. */
async function fails(transport: Transport, ask: Ask, expected: Expected): Promise<void> {
  const before = await counted(ask.model);
  const endedBefore = ended;
  expectTold(transport, await transport.ask(ask), expected);
  await until(() => ended > endedBefore);
  await expectCounted(ask.model, before, expected.unmatched ?? false);
  expect(ended - endedBefore).toBe(1);
}

async function expectCounted(
  model: string,
  before: { failed: number; unmatched: number },
  unmatched: boolean,
): Promise<void> {
  await until(async () => {
    const { failed, unmatched: none } = await counted(model);
    return failed + none > before.failed + before.unmatched;
  });
  const after = await counted(model);
  expect({
    failed: after.failed - before.failed,
    unmatched: after.unmatched - before.unmatched,
  }).toEqual(unmatched ? { failed: 0, unmatched: 1 } : { failed: 1, unmatched: 0 });
}

/** Runs something while the one lane of a model is busy. */
async function whileBusy(model: string, work: () => Promise<void>): Promise<void> {
  const running = (): number => engine.stats().models.reduce((all, { running: n }) => all + n, 0);
  const free = running();
  const controller = new AbortController();
  const { signal } = controller;
  // Below what is served, where no deadline is configured.
  const busy = (engine.find(model) as ModelServable).model.run(lasting, { signal }).catch(() => {});
  await until(() => running() > free);
  try {
    await work();
  } finally {
    controller.abort();
    await busy;
    await until(() => running() === free);
  }
}

/** Rows: what is done, or why a transport has no such cell. */
interface Row {
  readonly name: string;
  /** Why the cell cannot exist. */
  readonly missing?: (transport: Transport) => string | undefined;
  readonly run: (transport: Transport) => Promise<void>;
}

const unless =
  (what: Transport['says'][number], why: string) =>
  ({ says }: Transport): string | undefined =>
    says.includes(what) ? undefined : why;

/** A request with a deadline: its own, or the model's where the protocol cannot say one. */
const hurried = (transport: Transport): Ask =>
  transport.says.includes('timeout')
    ? { model: 'slow', inputs: lasting, timeoutMs: 100 }
    : { model: 'hasty', inputs: lasting };

const rows: Row[] = [
  {
    name: 'unknown model',
    run: (transport) =>
      fails(
        transport,
        { model: 'nope', inputs: both },
        { code: 'NOT_FOUND', words: 'model "nope" does not exist', unmatched: true },
      ),
  },
  {
    name: 'unknown version',
    run: (transport) =>
      fails(
        transport,
        { model: 'sum', version: '9', inputs: both },
        { code: 'NOT_FOUND', words: 'model "sum" has no version 9; it has 1', unmatched: true },
      ),
  },
  {
    name: 'unloaded while waiting',
    run: async (transport) => {
      await engine.load('brief', sum());
      const before = await counted('brief');
      let open!: () => void;
      gate = new Promise((resolve) => (open = resolve));
      seen = undefined;
      const told = transport.ask({ model: 'brief', inputs: both });
      await until(() => seen !== undefined);
      gate = undefined;
      await engine.unload('brief');
      open();
      expectTold(transport, await told, {
        code: 'NOT_FOUND',
        words: 'model "brief" does not exist',
      });
      await expectCounted('brief', { ...before, failed: 0 }, true);
    },
  },
  {
    name: 'unknown input',
    run: (transport) =>
      fails(
        transport,
        { model: 'sum', inputs: { ...both, z: float([1, 2]) } },
        { code: 'INVALID_INPUT', words: 'input "z" does not exist; the model has "a", "b"' },
      ),
  },
  {
    name: 'missing input',
    run: (transport) =>
      fails(
        transport,
        { model: 'sum', inputs: { a: both.a } },
        {
          code: 'INVALID_INPUT',
          words: 'input "b" is missing; the model takes 2 inputs: "a", "b"',
        },
      ),
  },
  {
    name: 'wrong dtype',
    missing: unless('dtype', 'its JSON has numbers without a dtype'),
    run: (transport) =>
      fails(
        transport,
        {
          model: 'sum',
          inputs: { ...both, b: { dtype: 'int64', shape: [1, 2], data: new BigInt64Array(2) } },
        },
        { code: 'INVALID_INPUT', words: 'input "b": expected float32[n,2], got int64[1,2]' },
      ),
  },
  {
    name: 'wrong shape before the run',
    run: (transport) =>
      fails(
        transport,
        { model: 'sum', inputs: { ...both, b: float([1, 3]) } },
        {
          code: 'INVALID_INPUT',
          // It makes the shape of as many values as come.
          words: transport.says.includes('shape')
            ? 'input "b": expected float32[n,2], got float32[1,3]'
            : 'input "b": 3 values do not fit [n,2]',
        },
      ),
  },
  {
    name: 'wrong shape inside the run',
    run: (transport) =>
      fails(
        transport,
        { model: 'product', inputs: { x: float([1, 4]) } },
        { code: 'INVALID_INPUT', words: /Gemm node.*Dimension mismatch, W: \{3,2\} K: 4/ },
      ),
  },
  {
    name: 'unknown output',
    missing: unless('outputs', 'its requests get all outputs'),
    run: (transport) =>
      fails(
        transport,
        { model: 'sum', inputs: both, outputs: ['z'] },
        { code: 'INVALID_INPUT', words: 'output "z" does not exist; the model has "y"' },
      ),
  },
  {
    name: 'deadline in the queue',
    run: (transport) => {
      const ask = hurried(transport);
      return whileBusy(ask.model, () =>
        fails(transport, ask, { code: 'TIMEOUT', words: 'the deadline passed' }),
      );
    },
  },
  {
    name: 'deadline in the run',
    run: (transport) =>
      fails(transport, hurried(transport), { code: 'TIMEOUT', words: 'the deadline passed' }),
  },
  {
    name: 'client gone in the queue',
    run: (transport) =>
      whileBusy('slow', () => leaves(transport, () => engine.stats().models.some((m) => m.queued))),
  },
  {
    name: 'client gone in the run',
    run: async (transport) => {
      await leaves(transport, () => engine.stats().models.some((model) => model.running));
      await until(() => engine.stats().models.every((model) => model.running === 0));
    },
  },
  {
    name: 'queue full',
    run: (transport) =>
      whileBusy('slow', async () => {
        const controller = new AbortController();
        const { signal } = controller;
        const queued = engine.infer('slow', lasting, { signal }).catch(() => {});
        await until(() => engine.stats().models.some((model) => model.queued === 1));
        try {
          await fails(
            transport,
            { model: 'slow', inputs: lasting },
            { code: 'OVERLOAD', words: 'the queue is full: 1 requests are waiting (maxQueue)' },
          );
        } finally {
          controller.abort();
          await queued;
        }
      }),
  },
  {
    name: 'draining',
    run: async (transport) => {
      await engine.load('brief', slow(), { lanes: 1, warmUp: false, batching: { maxBatch: 1 } });
      let unloaded: Promise<boolean> | undefined;
      await whileBusy('brief', async () => {
        unloaded = engine.unload('brief');
        await fails(
          transport,
          { model: 'brief', inputs: lasting },
          { code: 'UNAVAILABLE', words: 'model "brief" is being unloaded', unmatched: true },
        );
      });
      expect(await unloaded).toBe(true);
    },
  },
  {
    name: 'servable throws',
    run: (transport) =>
      fails(
        transport,
        { model: 'bad', inputs: { a: both.a } },
        // What it was is the server's business.
        { code: 'INTERNAL', words: 'internal error' },
      ),
  },
  {
    name: 'interceptor refuses',
    run: async (transport) => {
      refusal = new TercelError('DENIED', 'not on a Tuesday');
      try {
        await fails(
          transport,
          { model: 'sum', inputs: both },
          { code: 'DENIED', words: 'not on a Tuesday', unmatched: true },
        );
      } finally {
        refusal = undefined;
      }
    },
  },
];

/** Asks, and goes away when the request is where it should be. */
async function leaves(transport: Transport, isThere: () => boolean): Promise<void> {
  const before = await counted('slow');
  const controller = new AbortController();
  const told = transport.ask({ model: 'slow', inputs: lasting }, controller.signal);
  await until(isThere);
  const exchange = seen!;
  controller.abort();
  expect((await told).code).toBe('gone');
  await until(() => exchange.outcome !== undefined);
  const why = transport.codes === 'error' ? 'the request was taken back' : 'the client went away';
  expect([exchange.outcome, exchange.error?.message]).toEqual(['CANCELLED', why]);
  await expectCounted('slow', before, false);
}

const names = [
  'HTTP wire',
  'HTTP small bodies',
  'Fastify',
  'gRPC below grpc-js',
  'gRPC by grpc-js',
  'gRPC stream',
  'TFS REST',
  'TFS gRPC',
  'generate',
  'in process',
];

it('has every transport', () => {
  expect(transports.list.map(({ name }) => name)).toEqual(names);
});

describe.each(rows.map((row) => [row.name, row] as const))('%s', (_name, row) => {
  it.each(names)('by %s', async (name) => {
    const transport = transports.list.find((each) => each.name === name)!;
    const reason = row.missing?.(transport);
    if (reason !== undefined) {
      // There is no such cell; a transport that learns to say it has to lose the reason.
      expect(reason).not.toBe('');
      return;
    }
    const before = transport.hot?.() ?? 0;
    await row.run(transport);
    if (transport.hot) expect(transport.hot() - before).toBe(1);
  });
});
