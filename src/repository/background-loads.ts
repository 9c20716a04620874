/** Loads that go on while an older one serves: one at a time for each model and version. */
export class BackgroundLoads {
  readonly #running = new Map<string, AbortController>();

  /** Ends the load of the version that goes on, and begins another. `work` reports its own errors. */
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

  /** Ends loads that go on: of a model, of one version of it, or all. */
  cancel(name?: string, version?: string): void {
    for (const [key, controller] of this.#running) {
      const isMeant =
        name === undefined ||
        (version === undefined ? key.startsWith(`${name}/`) : key === `${name}/${version}`);
      if (isMeant) controller.abort();
    }
  }
}
