/** What a repository tells of, for a log. */
export type RepositoryEvent =
  | { kind: 'loaded'; name: string; version: string; ms: number }
  | { kind: 'unloaded'; name: string; version: string }
  | { kind: 'failed'; name: string; version: string; reason: string }
  /** TensorRT's engines are built, which takes minutes; meanwhile the next provider serves. */
  | { kind: 'building'; name: string; version: string }
  | { kind: 'warning'; name: string; text: string };
