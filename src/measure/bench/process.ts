// One process of a run in several: takes a plan from its parent, and gives back a document.
import { runBench } from './bench.js';
import type { FromLaunch, ToLaunch } from './processes.js';

const abort = new AbortController();

function tell(message: FromLaunch): void {
  if (process.connected) process.send!(message);
}

// Ctrl-C reaches all processes of a terminal: the parent says when to end.
process.on('SIGINT', () => {});
process.on('disconnect', () => process.exit(1));
process.on('message', (message: ToLaunch) => {
  if ('abort' in message) {
    abort.abort();
    return;
  }
  runBench(message.plan, abort.signal, ({ point, phase, round }) =>
    tell({ progress: { id: point.id, phase, ...(round && { round }) } }),
  )
    .then(
      ({ document, failure }) => tell({ document, failure: failure?.message }),
      (error: unknown) => tell({ error: (error as Error).message }),
    )
    .finally(() => process.disconnect());
});
