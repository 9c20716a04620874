// Servers as processes, and wrk against them.
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import type { Tensor } from '../src/index.js';

const folder = fileURLToPath(new URL('./servers/', import.meta.url));
const scratch = mkdtempSync(path.join(tmpdir(), 'tercel-bench-'));

export class Server {
  readonly port: number;
  readonly url: string;
  readonly #child: ChildProcess;
  readonly #lines: AsyncIterator<string>;

  private constructor(child: ChildProcess, lines: AsyncIterator<string>, port: string) {
    this.#child = child;
    this.#lines = lines;
    this.port = Number(port);
    this.url = `http://127.0.0.1:${port}/v2/models/model/infer`;
  }

  static start(name: string, ...args: string[]): Promise<Server> {
    return Server.#spawn(folder, name, args);
  }

  /** Another checkout's server of that name. */
  static startIn(root: string, name: string, ...args: string[]): Promise<Server> {
    return Server.#spawn(path.join(root, 'bench/servers'), name, args);
  }

  static async #spawn(from: string, name: string, args: readonly string[]): Promise<Server> {
    const child = spawn(process.execPath, [path.join(from, `${name}.mjs`), ...args], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    const lines = createInterface(child.stdout)[Symbol.asyncIterator]();
    for (let line = await lines.next(); !line.done; line = await lines.next()) {
      if (/^[0-9]+$/.test(line.value)) return new Server(child, lines, line.value);
    }
    throw new Error(`${name} did not start`);
  }

  /** Writes a line; the next one that comes back. */
  async ask(line: string): Promise<string> {
    this.#child.stdin!.write(`${line}\n`);
    const answer = await this.#lines.next();
    if (answer.done) throw new Error('the process ended');
    return answer.value;
  }

  stop(): void {
    this.#child.kill('SIGKILL');
  }

  /** Seconds of processor time that the process has used. */
  cpu(): number {
    const stat = readFileSync(`/proc/${this.#child.pid}/stat`, 'utf8');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return (Number(fields[11]) + Number(fields[12])) / 100; // utime and stime; USER_HZ
  }
}

export interface WrkRequest {
  /** Of the JSON in front of binary tensors; undefined where all is JSON. */
  jsonBytes?: number;
  body: Buffer;
  /** More headers: those of request i of `copies` that are sent in turn. */
  headers?: { copies: number; of: (i: number) => Record<string, string> };
}

/** Makes all requests before the first is sent: what is written for each takes the generator no time then. */
function headersInTurn({ copies, of }: NonNullable<WrkRequest['headers']>): string {
  const lists = Array.from({ length: copies }, (_, i) =>
    Object.entries(of(i))
      .map(([name, value]) => `["${name}"]="${value}"`)
      .join(','),
  );
  return `
local turns = {${lists.map((list) => `{${list}}`).join(',\n')}}
local made = {}
local turn = 0
function request()
  turn = turn % #turns + 1
  if not made[turn] then
    for name, value in pairs(turns[turn]) do wrk.headers[name] = value end
    -- Lua has equal strings once: with tensors that differ in their last number, all lists lie in as much memory.
    local number = string.char(turn % 256, math.floor(turn / 256) % 256, 128, 63)
    made[turn] = wrk.format(nil, nil, nil, wrk.body:sub(1, -5) .. number)
  end
  return made[turn]
end
`;
}

/** An infer request in JSON. */
export function jsonRequest(inputs: Record<string, Tensor>): WrkRequest {
  const listed = Object.entries(inputs).map(([name, { dtype, shape, data }]) => ({
    name,
    shape,
    datatype: dtype === 'int64' ? 'INT64' : 'FP32',
    data: Array.from(data as Float32Array),
  }));
  return { body: Buffer.from(JSON.stringify({ inputs: listed })) };
}

/** A binary infer request. */
export function binaryRequest(inputs: Record<string, Tensor>): WrkRequest {
  const parts: Buffer[] = [];
  const listed = Object.entries(inputs).map(([name, { dtype, shape, data }]) => {
    const view = data as Float32Array;
    parts.push(Buffer.from(view.buffer, view.byteOffset, view.byteLength));
    return {
      name,
      shape,
      datatype: dtype === 'int64' ? 'INT64' : 'FP32',
      parameters: { binary_data_size: view.byteLength },
    };
  });
  const head = Buffer.from(
    JSON.stringify({ inputs: listed, parameters: { binary_data_output: true } }),
  );
  return { jsonBytes: head.length, body: Buffer.concat([head, ...parts]) };
}

export interface LoadResult {
  perSecond: number;
  p50Us: number;
  p99Us: number;
  /** Answers that were not 200, and connections that broke. */
  errors: number;
  /** Of one processor, used by the load generator. */
  cpu: number;
}

let scripts = 0;

/** Closed loop over `connections`, for `seconds`, by wrk with one thread. */
export function load(
  url: string,
  request: WrkRequest,
  connections: number,
  seconds: number,
): LoadResult {
  const body = path.join(scratch, `body-${++scripts}`);
  writeFileSync(body, request.body);
  const script = path.join(scratch, `post-${scripts}.lua`);
  writeFileSync(
    script,
    `local file = io.open("${body}", "rb")
wrk.method = "POST"
wrk.body = file:read("*a")
wrk.headers["Content-Type"] = "${request.jsonBytes ? 'application/octet-stream' : 'application/json'}"
${request.jsonBytes ? `wrk.headers["Inference-Header-Content-Length"] = "${request.jsonBytes}"` : ''}
${request.headers ? headersInTurn(request.headers) : ''}
done = function(summary, latency, requests)
  io.write(string.format("RESULT %d %d %d %d %d\\n", summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99),
    summary.errors.status + summary.errors.read + summary.errors.write + summary.errors.connect + summary.errors.timeout))
end
`,
  );
  const { stdout, stderr, error } = spawnSync(
    'bash',
    [
      '-c',
      `TIMEFORMAT='CPU %U %S'; time wrk -t1 -c${connections} -d${seconds}s --timeout 30s -s ${script} ${url}`,
    ],
    { encoding: 'utf8' },
  );
  const result = /RESULT (\d+) (\d+) (\d+) (\d+) (\d+)/.exec(stdout);
  if (error || !result) throw new Error(`wrk is needed: ${stderr || String(error)}`);
  const [requests, us, p50Us, p99Us, errors] = result.slice(1).map(Number) as [
    number,
    number,
    number,
    number,
    number,
  ];
  const used = /CPU ([\d.]+) ([\d.]+)/.exec(stderr)!;
  return {
    perSecond: (requests / us) * 1e6,
    p50Us,
    p99Us,
    errors,
    cpu: (Number(used[1]) + Number(used[2])) / (us / 1e6),
  };
}
