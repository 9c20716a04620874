// The models that paths of infer requests name.
import { BoundedMap } from '../protocol/bounded-map.js';

/** A model that a path names. */
export interface Target {
  readonly name: string;
  readonly version: string | undefined;
}

const MAX_TARGETS = 1024;
const route = /^\/v2\/models\/([^/?]+)(?:\/versions\/([^/?]+))?\/infer$/;

function decode(text: string): string | undefined {
  try {
    return decodeURIComponent(text);
  } catch {
    return undefined;
  }
}

/** Targets by path: clients ask for the same ones over and over. */
export class Targets {
  readonly #byPath = new BoundedMap<Target | null>(MAX_TARGETS);

  /** What a path names; null where it is not one of infer requests. */
  of(path: string): Target | null {
    const known = this.#byPath.get(path);
    if (known !== undefined) return known;
    const match = route.exec(path);
    const name = match && decode(match[1]!);
    const version = match?.[2] === undefined ? undefined : decode(match[2]);
    const isKnown = name && (match[2] === undefined || version !== undefined);
    const target = isKnown ? { name, version } : null;
    this.#byPath.set(path, target);
    return target;
  }
}
