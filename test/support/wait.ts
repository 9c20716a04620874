// How long tests wait for what will come. Longer than any of it takes on a busy machine, and shorter one than the
// next: what is waited for fails by its own limit, and says so, before the limit of what waits.
import { setTimeout as sleep } from 'node:timers/promises';

/** For something to happen in this process, or an answer to come. */
export const PATIENCE_MS = 60_000;
/** For a command to end. */
export const COMMAND_MS = 120_000;
/** For a test, or a hook, which may run a command or two. vitest.config.ts sets it. */
export const TEST_MS = 300_000;

/** Waits until the condition holds. */
export async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  for (const end = Date.now() + PATIENCE_MS; !(await condition());) {
    if (Date.now() > end) throw new Error(`it did not happen within ${PATIENCE_MS / 1000} s`);
    await sleep(2);
  }
}
