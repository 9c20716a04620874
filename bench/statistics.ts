// Medians with their ranges: the machine is shared and noisy, so ratios of one run are what counts.

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

export function percentile(values: readonly number[], p: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor((sorted.length * p) / 100))]!;
}

/** Ratios round by round, each against its neighbour in time. */
export function ratios(a: readonly number[], b: readonly number[]): number[] {
  return a.map((value, i) => value / b[i]!);
}

export function show(values: readonly number[], digits = 2): string {
  const f = (value: number): string => value.toFixed(digits);
  return `${f(median(values))} (${f(Math.min(...values))}-${f(Math.max(...values))})`;
}

export interface Bar {
  name: string;
  /** Measured, as it is to be compared. */
  value: number;
  text: string;
  /** Round by round, where there are rounds. */
  values?: readonly number[];
  /** What must hold. */
  bar: number;
  direction: 'at most' | 'at least';
}

export function holds(bar: Bar): boolean {
  return bar.direction === 'at most' ? bar.value <= bar.bar : bar.value >= bar.bar;
}

/** Whether any round of it holds: worse than the bar by more than the noise of the run itself, if not. */
export function holdsWithinNoise(bar: Bar): boolean {
  return (bar.values ?? [bar.value]).some((value) => holds({ ...bar, value }));
}

export function print(bar: Bar): void {
  const verdict = holds(bar) ? 'holds' : 'MISSED';
  console.log(
    `  ${bar.name.padEnd(52)} ${bar.text.padEnd(34)} ${bar.direction} ${bar.bar}: ${verdict}`,
  );
}
