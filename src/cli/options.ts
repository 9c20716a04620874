// What several commands' options have in common: values as they are written on a command line.
import { accessSync, constants, existsSync } from 'node:fs';
import path from 'node:path';
import { InvalidArgumentError } from 'commander';

function wrong(expected: string, text: string): never {
  throw new InvalidArgumentError(`Expected ${expected}, got "${text}".`);
}

/** "2s", "500ms", "1.5m", or milliseconds. */
export function duration(text: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*(ms|s|m)?$/.exec(text);
  if (!match) wrong('a duration such as 2s or 500ms', text);
  const unit = { ms: 1, s: 1000, m: 60_000 }[match[2] ?? 'ms']!;
  return Number(match[1]) * unit;
}

/** "5%" or "0.05". */
export function part(text: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*(%)?$/.exec(text);
  if (!match) wrong('a part such as 5%', text);
  return Number(match[1]) / (match[2] ? 100 : 1);
}

export function wholeNumber(text: string): number {
  if (!/^\d+$/.test(text)) wrong('a whole number', text);
  return Number(text);
}

/** "1,8,64", or "1..64", which doubles, or "1..10:3", by steps. Of 1 or more. */
export function numbers(text: string): number[] {
  const values = text.split(',').flatMap((item) => {
    const range = /^(\d+)\.\.(\d+)(?::(\d+))?$/.exec(item.trim());
    if (!range) {
      if (!/^\d+(\.\d+)?$/.test(item.trim())) wrong('numbers such as 1,8,64 or 1..64', text);
      return [Number(item)];
    }
    const [, from, to, step] = range.map(Number) as [number, number, number, number];
    if (from < 1 || to < from || step === 0) wrong('a range such as 1..64 or 1..10:3', text);
    const list: number[] = [];
    for (let at = from; at < to; at = Number.isNaN(step) ? at * 2 : at + step) list.push(at);
    if (Number.isNaN(step) || (to - from) % step === 0) list.push(to);
    return list;
  });
  if (values.some((value) => !(value > 0))) wrong('numbers above 0', text);
  return [...new Set(values)];
}

/** "a,b" of what there is. */
export function choices<T extends string>(known: readonly T[]): (text: string) => T[] {
  return (text) => {
    const values = text.split(',').map((item) => item.trim());
    const strange = values.find((value) => !known.includes(value as T));
    if (strange !== undefined) wrong(known.join(', '), strange);
    return [...new Set(values)] as T[];
  };
}

/** "name=value", again and again; '' is the name where none is given. */
export function pairs(text: string, before: Record<string, string> = {}): Record<string, string> {
  const at = text.indexOf('=');
  return { ...before, [at < 0 ? '' : text.slice(0, at)]: text.slice(at + 1) };
}

/** Ends the command where a file cannot be written. */
export function mayWrite(command: string, ...files: readonly (string | undefined)[]): void {
  for (const file of files) {
    if (file === undefined) continue;
    try {
      accessSync(existsSync(file) ? file : path.dirname(path.resolve(file)), constants.W_OK);
    } catch (error) {
      console.error(`${command}: cannot write ${file}: ${(error as Error).message}`);
      process.exit(2);
    }
  }
}
