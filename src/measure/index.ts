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
