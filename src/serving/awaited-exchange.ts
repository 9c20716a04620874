// Exchanges of transports that wait for the outputs: what is done with them may take its time too.
import type { Inputs, Servable, Values } from '../types/servable.js';
import { Exchange, NO_VALUES } from './exchange.js';

export abstract class AwaitedExchange extends Exchange {
  #resolve: ((values: Values) => void) | undefined;
  #reject: ((error: unknown) => void) | undefined;
  /** What the servable says after its answer is not heard. */
  #answered = false;

  protected get answered(): boolean {
    return this.#answered;
  }

  /** As begin(); resolves with the outputs. */
  values(servable: Servable, inputs: Inputs): Promise<Values> {
    return new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
      if (this.error) reject(this.error);
      else this.begin(servable, inputs);
    });
  }

  /** Passes enter(), does the work, and settles. Throws what becomes the answer. */
  async perform<T>(work: () => T | Promise<T>): Promise<T> {
    await this.enter();
    if (this.error) throw this.error;
    return this.complete(work);
  }

  /** As perform(), of an exchange that has entered. */
  async complete<T>(work: () => T | Promise<T>): Promise<T> {
    try {
      const result = await work();
      if (this.error) throw this.error;
      this.settle('OK');
      return result;
    } catch (error) {
      // An error of its own outcome: what work threw may only be what came of that.
      const first = this.error;
      this.failWork(first ?? error);
      throw first ?? error;
    }
  }

  /** What became of the work: also after the servable's answer. */
  failWork(error: unknown): void {
    super.fail(error);
  }

  override answer(values: Values = NO_VALUES): void {
    if (this.outcome !== undefined || this.#answered) return;
    this.#answered = true;
    this.release();
    try {
      this.place(values);
    } catch (error) {
      this.#reject?.(error);
      return;
    }
    this.#resolve?.(values);
  }

  override part(values: Values): boolean {
    return !this.#answered && super.part(values);
  }

  override fail(error: unknown): void {
    if (this.#answered) return;
    super.fail(error);
    this.#reject?.(this.error ?? error);
  }

  override gone(): void {
    super.gone();
    this.#reject?.(this.error);
  }

  protected override write(): void {} // by who waits

  protected override writeError(): void {} // the same
}
