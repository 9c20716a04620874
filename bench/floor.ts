// Talks to build/tests/tercel_floor, the C loop that everything is compared with.
import { spawn, type ChildProcessWithoutNullStreams } from 'node:child_process';
import { existsSync } from 'node:fs';
import { createInterface, type Interface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const program = fileURLToPath(new URL('../build/tests/tercel_floor', import.meta.url));

export class Floor {
  readonly #child: ChildProcessWithoutNullStreams;
  readonly #lines: AsyncIterableIterator<string>;
  readonly #reader: Interface;

  private constructor(child: ChildProcessWithoutNullStreams) {
    this.#child = child;
    this.#reader = createInterface(child.stdout);
    this.#lines = this.#reader[Symbol.asyncIterator]();
    child.stderr.pipe(process.stderr);
  }

  /** Starts the C loop on a processor of its own choice, or on `cpu`. */
  static async start(
    library: string,
    model: string,
    options: { threads?: number; dimensions?: Record<string, number>; cpu?: string } = {},
  ): Promise<Floor> {
    if (!existsSync(program)) throw new Error('the floor is not built: npm run build:native-tests');
    const args = [
      library,
      model,
      String(options.threads ?? 1),
      ...Object.entries(options.dimensions ?? {}).map(([name, value]) => `${name}=${value}`),
    ];
    const [command, ...rest] = options.cpu ? ['taskset', '-c', options.cpu, program] : [program];
    const floor = new Floor(spawn(command, [...rest, ...args]));
    const ready = await floor.#lines.next();
    if (ready.value !== 'ready') throw new Error('the floor did not start');
    return floor;
  }

  /** Nanoseconds of one run, over `runs`. */
  async measure(runs: number): Promise<number> {
    this.#child.stdin.write(`${runs}\n`);
    const answer = await this.#lines.next();
    if (answer.done) throw new Error('the floor ended early');
    return Number(answer.value);
  }

  stop(): void {
    this.#child.stdin.end();
    this.#reader.close();
  }
}
