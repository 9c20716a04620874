// Before tests that judge time: this process and what it starts go before whatever else the machine does. Where
// that is not allowed they run as they are.
import os from 'node:os';

try {
  os.setPriority(os.constants.priority.PRIORITY_HIGHEST);
} catch {
  // Only root may.
}
