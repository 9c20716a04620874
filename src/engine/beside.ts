/** Work that goes on beside what serves: one at a time for each model and version. */
export class Beside {
  readonly #running = new Map<string, { controller: AbortController; end: Promise<void> }>();

  /** Ends what goes on for the version, and begins anew. `work` reports its own errors. */
  start(name: string, version: string, work: (signal: AbortSignal) => Promise<void>): void {
    const key = `${name}/${version}`;
    this.#running.get(key)?.controller.abort();
    const controller = new AbortController();
    const entry = { controller, end: Promise.resolve() };
    entry.end = work(controller.signal)
      .catch(() => {})
      .finally(() => {
        if (this.#running.get(key) === entry) this.#running.delete(key);
      });
    this.#running.set(key, entry);
  }

  /** Ends what goes on for a model, or for one version of it. */
  cancel(name: string, version?: string): void {
    for (const [key, { controller }] of this.#running) {
      const isMeant =
        version === undefined ? key.startsWith(`${name}/`) : key === `${name}/${version}`;
      if (isMeant) controller.abort();
    }
  }

  async close(): Promise<void> {
    const all = [...this.#running.values()];
    for (const { controller } of all) controller.abort();
    await Promise.all(all.map(({ end }) => end));
  }
}
