// What is logged, as the logging extension reads and sets it.
import {
  changeLogSettings,
  defaultLogSettings,
  type LogSettings,
} from '../protocol/v2/log-settings.js';

/** What is logged now: one for all the servers of a process that clients should see as one. */
export class Logging {
  #settings = defaultLogSettings();
  readonly #listeners = new Set<() => void>();

  get settings(): Readonly<LogSettings> {
    return this.#settings;
  }

  /** Whether requests are logged. */
  get verbose(): boolean {
    return this.#settings.log_verbose_level > 0;
  }

  /** Throws InvalidInputError; then nothing changed. */
  change(changes: unknown): void {
    this.#settings = changeLogSettings(this.#settings, changes);
    for (const listener of this.#listeners) listener();
  }

  /** Calls after each change; what is given ends that. */
  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }
}
