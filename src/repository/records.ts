// What became of each version that was tried: what the index says.

export type VersionState = 'LOADING' | 'READY' | 'UNLOADING' | 'UNAVAILABLE';

export interface IndexEntry {
  name: string;
  /** '' where no version could be told. */
  version: string;
  state: VersionState;
  /** Why it is not ready; also of a version that serves while a newer load of it failed. */
  reason: string;
}

export interface VersionRecord {
  state: VersionState;
  reason: string;
  /** What it was made of; another is another load. */
  identity: string;
}

/** Records by name and version. */
export class VersionRecords {
  readonly #byName = new Map<string, Map<string, VersionRecord>>();

  names(): string[] {
    return [...this.#byName.keys()];
  }

  /** Of a model; undefined when nothing of it was tried. */
  of(name: string): ReadonlyMap<string, VersionRecord> | undefined {
    return this.#byName.get(name);
  }

  /** Of a version, or `''` for what no version can be told; made where it is missing. */
  at(name: string, version: string): VersionRecord {
    let records = this.#byName.get(name);
    if (!records) this.#byName.set(name, (records = new Map<string, VersionRecord>()));
    // A failure that no version could be told for is over.
    if (version !== '') records.delete('');
    let record = records.get(version);
    if (!record) {
      records.set(version, (record = { state: 'UNAVAILABLE', reason: '', identity: '' }));
    }
    return record;
  }

  /** Notes that a version cannot be served; false when that was known. */
  fail(name: string, version: string, reason: string): boolean {
    const record = this.at(name, version);
    if (record.reason === reason && record.state === 'UNAVAILABLE') return false; // a poll finds it again
    Object.assign(record, { state: 'UNAVAILABLE', reason });
    return true;
  }

  /** Drops versions that are gone and do not serve: they are not worth a line. */
  forget(name: string, isThere: (version: string) => boolean): void {
    const records = this.#byName.get(name);
    for (const [version, { state }] of records ?? []) {
      if (!isThere(version) && state !== 'READY') records!.delete(version);
    }
  }

  /** What the index says of a model. */
  describe(name: string): IndexEntry[] {
    const records = [...(this.#byName.get(name) ?? [])];
    if (records.length === 0) {
      return [{ name, version: '', state: 'UNAVAILABLE', reason: 'not loaded' }];
    }
    return records.map(([version, { state, reason }]) => ({ name, version, state, reason }));
  }
}
