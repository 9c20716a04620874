/** Work that goes on beside what serves: one at a time for each model and version. */
export class Beside {
  readonly #running = new Map<string, AbortController>();

  /** Ends what goes on for the version, and begins anew. `work` reports its own errors. */
  start(name: string, version: string, work: (signal: AbortSignal) => Promise<void>): void {
    const key = `${name}/${version}`;
    this.#running.get(key)?.abort();
    const controller = new AbortController();
    this.#running.set(key, controller);
    const end = (): void => {
      if (this.#running.get(key) === controller) this.#running.delete(key);
    };
    work(controller.signal).then(end, end);
  }

  /** Ends what goes on: of a model, of one version of it, or all. */
  cancel(name?: string, version?: string): void {
    for (const [key, controller] of this.#running) {
      const isMeant =
        name === undefined ||
        (version === undefined ? key.startsWith(`${name}/`) : key === `${name}/${version}`);
      if (isMeant) controller.abort();
    }
  }
}
