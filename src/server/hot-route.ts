// The hot route: binary infer requests of small bodies, answered ahead of Fastify's router.
//
// Fastify's path costs 20 us a request and up (bench/http.ts). What it would do besides (hooks, logging,
// compression, its error handler) is looked for first: where any of it is wanted, or anything is unusual,
// the request takes Fastify's path and nothing is lost but time.
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { withDefaults, type Engine, type Servable } from '../engine/engine.js';
import { readPriority, readTimeout } from '../engine/run-options.js';
import type { Tensor } from '../tensor.js';
import { InvalidInputError } from '../errors.js';
import { decodeInferRequest, encodeInferResponse } from '../protocol/v2.js';
import { planOf, plannedInputs, plannedResponse, type InferPlan } from '../protocol/v2-plan.js';
import type { Arrivals } from './arrivals.js';
import { HEADER_LENGTH } from './body.js';
import { answerFor, HttpError } from './errors.js';

/** Larger bodies go straight into a lease, chunk by chunk: Fastify's path does that. */
const MAX_BODY_BYTES = 64 * 1024;
/** Smaller answers go out with their headers. */
const ONE_WRITE_BYTES = 2048;
/** JSON that is longer is not worth keeping. */
const MAX_PLANNED_JSON = 2048;
const MAX_PLANS = 256;
const MAX_ROUTES = 1024;

interface Target {
  name: string;
  version: string | undefined;
}

/** What a request needs of the model, found once for each plan and model. */
interface Prepared {
  servable: Servable;
  selection: ReturnType<Servable['model']['select']>;
  priority: number;
  timeoutMs: number;
}

const route = /^\/v2\/models\/([^/?]+)(?:\/versions\/([^/?]+))?\/infer$/;
const whole = /^[0-9]{1,9}$/;

function decode(text: string): string | undefined {
  try {
    return decodeURIComponent(text);
  } catch {
    return undefined;
  }
}

/** The runs that a socket waits for, so that they end when the client goes away. */
const running = Symbol('running');
interface WaitingSocket extends Socket {
  [running]?: Map<number, Servable>;
}

function onSocketClose(this: WaitingSocket): void {
  for (const [slot, servable] of this[running] ?? []) servable.model.cancel(slot);
}

export class HotRoute {
  /** Off while Fastify has anything to add. */
  enabled = true;
  /** Requests answered. */
  answered = 0;
  readonly #engine: Engine;
  readonly #arrivals: Arrivals;
  readonly #targets = new Map<string, Target | null>();
  readonly #plans = new Map<string, InferPlan>();
  readonly #prepared = new WeakMap<InferPlan, Prepared>();

  readonly #maxBodyBytes: number;

  constructor(engine: Engine, arrivals: Arrivals, bodyLimitBytes: number) {
    this.#maxBodyBytes = Math.min(MAX_BODY_BYTES, bodyLimitBytes);
    this.#engine = engine;
    this.#arrivals = arrivals;
  }

  /** Takes the request, or says false and has not touched it. */
  take(request: IncomingMessage, response: ServerResponse): boolean {
    if (!this.enabled || request.method !== 'POST') return false;
    const target = this.#target(request.url!);
    if (!target) return false;
    const { headers } = request;
    const jsonLength = headers[HEADER_LENGTH];
    const length = headers['content-length'];
    if (
      typeof jsonLength !== 'string' ||
      length === undefined ||
      !whole.test(jsonLength) ||
      !whole.test(length) ||
      headers['accept-encoding'] !== undefined ||
      headers['content-encoding'] !== undefined ||
      headers.expect !== undefined
    ) {
      return false;
    }
    const jsonBytes = Number(jsonLength);
    const bytes = Number(length);
    if (jsonBytes === 0 || jsonBytes > bytes || bytes > this.#maxBodyBytes) return false;
    if (!this.#engine.find(target.name, target.version)) return false;
    const concurrent = this.#arrivals.count();
    let body: Buffer | undefined;
    request.on('data', (chunk: Buffer) => {
      body = body ? Buffer.concat([body, chunk]) : chunk;
    });
    request.on('end', () => {
      this.answered++;
      try {
        this.#infer(target, body!, jsonBytes, concurrent, request, response);
      } catch (error) {
        fail(response, error);
      }
    });
    return true;
  }

  #target(url: string): Target | null {
    const known = this.#targets.get(url);
    if (known !== undefined) return known;
    const match = route.exec(url);
    const name = match && decode(match[1]!);
    const version = match?.[2] === undefined ? undefined : decode(match[2]);
    const isKnown = name && (match[2] === undefined || version !== undefined);
    const target = isKnown ? { name, version } : null;
    if (this.#targets.size >= MAX_ROUTES) this.#targets.clear();
    this.#targets.set(url, target);
    return target;
  }

  #infer(
    target: Target,
    body: Buffer,
    jsonBytes: number,
    concurrent: boolean,
    request: IncomingMessage,
    response: ServerResponse,
  ): void {
    const servable = this.#engine.find(target.name, target.version);
    // Unloaded while the body came.
    if (!servable) throw new HttpError(404, `model "${target.name}" does not exist`);
    const binary = body.subarray(jsonBytes);
    const key = `${body.length} ${body.toString('latin1', 0, jsonBytes)}`;
    let plan = jsonBytes <= MAX_PLANNED_JSON ? this.#plans.get(key) : undefined;
    let inputs: Record<string, Tensor>;
    if (plan) {
      inputs = plannedInputs(plan, binary);
    } else {
      const json = parseJson(body, jsonBytes);
      const decoded = decodeInferRequest(json, binary);
      inputs = decoded.inputs;
      plan = planOf(json, decoded);
      if (plan && jsonBytes <= MAX_PLANNED_JSON) {
        if (this.#plans.size >= MAX_PLANS) this.#plans.clear();
        this.#plans.set(key, plan);
      }
      plan ??= { request: { ...decoded, inputs: {} }, inputs: [], head: undefined };
    }
    const prepared = this.#prepare(plan, servable);
    const socket = request.socket as WaitingSocket;
    let slot: number | undefined = undefined; // until start() returns: it may be done by then
    slot = servable.model.start(
      inputs,
      prepared.selection,
      { priority: prepared.priority, timeoutMs: prepared.timeoutMs, concurrent },
      (values) => {
        if (slot !== undefined) socket[running]!.delete(slot);
        try {
          answer(response, plan, servable, values);
        } catch (error) {
          fail(response, error);
        }
      },
      (error) => {
        if (slot !== undefined) socket[running]!.delete(slot);
        fail(response, error);
      },
    );
    if (slot === undefined) return;
    if (!socket[running]) {
      socket[running] = new Map();
      socket.on('close', onSocketClose);
    }
    socket[running].set(slot, servable);
  }

  #prepare(plan: InferPlan, servable: Servable): Prepared {
    const known = this.#prepared.get(plan);
    if (known?.servable === servable) return known;
    const { outputs, priority, timeoutMs } = plan.request;
    const options = withDefaults(servable.config, { priority, timeoutMs });
    const prepared = {
      servable,
      selection: servable.model.select(outputs?.map(({ name }) => name)),
      priority: readPriority(options),
      timeoutMs: readTimeout(options),
    };
    this.#prepared.set(plan, prepared);
    return prepared;
  }
}

function parseJson(body: Buffer, bytes: number): unknown {
  try {
    return JSON.parse(body.toString('utf8', 0, bytes));
  } catch (cause) {
    throw new InvalidInputError(`the JSON does not parse: ${(cause as Error).message}`, { cause });
  }
}

function answer(
  response: ServerResponse,
  plan: InferPlan,
  servable: Servable,
  values: Record<string, Tensor>,
): void {
  if (response.destroyed) return;
  const { head, binary } = plannedResponse(plan, servable, values, () =>
    encodeInferResponse(servable, plan.request, values),
  );
  let total = head.length;
  for (const part of binary) total += part.length;
  response.writeHead(200, [
    'content-type',
    binary.length > 0 ? 'application/octet-stream' : 'application/json; charset=utf-8',
    ...(binary.length > 0 ? [HEADER_LENGTH, String(head.length)] : []),
    'content-length',
    String(total),
  ]);
  if (total <= ONE_WRITE_BYTES) {
    // As a string it goes out with the headers in one write, where a buffer wants writev.
    let text = head.toString('latin1');
    for (const { buffer, byteOffset, length } of binary) {
      text += Buffer.from(buffer, byteOffset, length).toString('latin1');
    }
    response.end(text, 'latin1');
    return;
  }
  if (total <= MAX_BODY_BYTES) {
    const whole = Buffer.allocUnsafe(total);
    head.copy(whole);
    let at = head.length;
    for (const part of binary) {
      whole.set(part, at);
      at += part.length;
    }
    response.end(whole);
    return;
  }
  response.write(head);
  for (const part of binary) response.write(part);
  response.end();
}

function fail(response: ServerResponse, error: unknown): void {
  if (response.destroyed || response.headersSent) return;
  const { status, message } = answerFor(error);
  const body = JSON.stringify({ error: message });
  response.writeHead(status, {
    'content-type': 'application/json; charset=utf-8',
    'content-length': Buffer.byteLength(body),
  });
  response.end(body);
}
