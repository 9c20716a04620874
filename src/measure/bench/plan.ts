// What a run of `tercel bench` is to measure, and what comes of it.
import type { InputChoices } from '../load/inputs.js';
import type { Arrivals } from '../load/load.js';
import type { Protocol } from '../load/servers.js';
import type { BenchDocument } from './document.js';
import type { Call } from './in-process.js';
import type { RunOptions } from './runner.js';

export interface BenchPlan {
  /** Files, or names on the server. */
  readonly models: readonly string[];
  readonly server:
    | {
        readonly url: string;
        readonly protocol: Protocol;
        readonly version: string | undefined;
        readonly json: boolean;
        readonly headers: Readonly<Record<string, string>>;
        readonly connections: number | undefined;
      }
    | undefined;
  /** The axes of the sweep: a point for each combination. */
  readonly arrivals: readonly Arrivals[];
  /** Undefined: 1, or for a fit several. */
  readonly batch: readonly number[] | undefined;
  readonly threads: readonly number[] | undefined;
  readonly lanes: readonly number[] | undefined;
  readonly providers: readonly (readonly string[])[] | undefined;
  readonly precisions: readonly string[] | undefined;
  readonly spinning: readonly boolean[];
  readonly calls: readonly Call[];
  readonly inputs: Pick<InputChoices, 'dimensions' | 'shapes' | 'files'>;
  /** Measure the bare C loop beside each point. */
  readonly withReference: boolean;
  readonly fit: boolean;
  /** Sizes of dynamic dimensions that a fit goes over; other runs take the first of each. */
  readonly dimensionLists: Readonly<Record<string, readonly number[]>>;
  readonly maxP99Ms: number | undefined;
  readonly label: string;
  readonly command: readonly string[];
  readonly run: Omit<RunOptions, 'signal' | 'onProgress'>;
}

export interface BenchOutcome {
  document: BenchDocument;
  /** Why it ended early, where nobody asked for that. */
  failure: Error | undefined;
}
