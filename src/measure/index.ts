// The instruments: what a model costs on a machine.
export { runBench } from './bench/bench.js';
export { type BenchPlan } from './bench/plan.js';
export {
  benchJsonSchema,
  readBenchDocument,
  type BenchDocument,
  type BenchPoint,
} from './bench/document.js';
export { compareDefaults, compareDocuments, worstLoss, type Comparison } from './bench/compare.js';
export { describeMachine, machineLine } from '../platform/machine.js';
export { csv, columns, digits, markdown, pointRows, pointTable } from './table.js';
export type { Progress } from './bench/runner.js';
export { profile, type Profile, type ProfileOptions } from './profile/profile.js';
export {
  diagnose,
  type Diagnosis,
  type MissingPiece,
  type ProviderReport,
} from '../platform/doctor/providers.js';
export { profileHtml } from './profile/profile-html.js';
export { profileText, traceJson } from './profile/profile-text.js';
export { benchHtml } from './bench/report-html.js';
export { fitCost, type CostModel, type Sample } from './bench/fit.js';
export { Histogram } from './load/histogram.js';
export { HttpSubject, type HttpRequest } from './load/http-load.js';
export { makeInputs, type InputChoices, type InputSpec } from './load/inputs.js';
export type { Arrivals, Subject, Window, WindowResult } from './load/load.js';
export { readMappings, type MemoryAccount } from './profile/memory.js';
export { flopsOf, type OperatorTime } from './profile/operators.js';
