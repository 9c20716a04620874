// The instruments: what a model costs on a machine.
export { runBench, type BenchPlan } from './bench.js';
export {
  benchJsonSchema,
  readBenchDocument,
  type BenchDocument,
  type BenchPoint,
} from './document.js';
export { compareDefaults, compareDocuments, worstLoss, type Comparison } from './compare.js';
export { describeMachine, machineLine } from './machine.js';
export { csv, columns, digits, markdown, pointRows, pointTable } from './table.js';
export type { Progress } from './runner.js';
export { profile, type Profile, type ProfileOptions } from './profile.js';
export { diagnose, type Diagnosis, type MissingPiece, type ProviderReport } from './providers.js';
export { profileHtml } from './profile-html.js';
export { profileText, traceJson } from './profile-text.js';
export { benchHtml } from './report-html.js';
export { fitCost, type CostModel, type Sample } from './fit.js';
export { Histogram } from './histogram.js';
export { HttpSubject, type HttpRequest } from './http-load.js';
export { makeInputs, type InputChoices, type InputSpec } from './inputs.js';
export type { Arrivals, Subject, Window, WindowResult } from './load.js';
export { readMappings, type MemoryAccount } from './memory.js';
export { flopsOf, type OperatorTime } from './operators.js';
