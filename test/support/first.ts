// Before tests that judge time: this process and what it starts go before whatever else the machine does, where that
// is allowed, and no processor sleeps. A virtual one that sleeps comes back when its host has time: milliseconds late.
import { spawn } from 'node:child_process';
import os from 'node:os';
import { afterAll } from 'vitest';

const { PRIORITY_HIGHEST, PRIORITY_LOW } = os.constants.priority;

// Ends with this process, however that ends.
const idle = `const end = Date.now() + 300_000;
while (process.ppid === ${process.pid} && Date.now() < end);`;
const idlers = Array.from({ length: os.availableParallelism() }, () => {
  const child = spawn(process.execPath, ['-e', idle], { stdio: 'ignore' });
  os.setPriority(child.pid!, PRIORITY_LOW);
  return child;
});
afterAll(() => {
  for (const child of idlers) child.kill('SIGKILL');
});

try {
  os.setPriority(PRIORITY_HIGHEST);
} catch {
  // Only root may.
}
