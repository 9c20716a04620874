// Whether requests come in a burst, several in one turn of the event loop: they share batches on a lane, while
// one alone is quickest inline.

/** Requests of all servers of a thread. */
export class Burst {
  #now = 0;
  #before = 0;
  #armed = false;

  readonly #onTurn = (): void => {
    this.#before = this.#now;
    this.#now = 0;
    this.#armed = this.#before > 0;
    // One more turn, to see that it is quiet again.
    if (this.#armed) setImmediate(this.#onTurn);
  };

  /** Counts one. Whether others came with it, in this turn or the one before. */
  count(): boolean {
    this.#now++;
    if (!this.#armed) {
      this.#armed = true;
      setImmediate(this.#onTurn);
    }
    return this.#now > 1 || this.#before > 1;
  }
}
