// Triton's logging and trace extensions: settings that clients read and set.
//
// Sources: Triton's "Logging Extension" and "Trace Extension".
import { InvalidInputError } from '../../errors.js';

/** What a server logs. */
export interface LogSettings {
  /** Always '': the log goes to standard output. */
  log_file: string;
  log_info: boolean;
  log_warning: boolean;
  log_error: boolean;
  /** Requests are logged from 1 on. */
  log_verbose_level: number;
  log_format: 'default';
}

export function defaultLogSettings(): LogSettings {
  return {
    log_file: '',
    log_info: true,
    log_warning: true,
    log_error: true,
    log_verbose_level: 0,
    log_format: 'default',
  };
}

/**
 * The settings with what a client says of them.
 *
 * @throws InvalidInputError naming the setting and what it takes; then nothing changed
 */
export function changeLogSettings(now: LogSettings, changes: unknown): LogSettings {
  if (changes === undefined) return now;
  if (typeof changes !== 'object' || changes === null || Array.isArray(changes)) {
    throw new InvalidInputError('the request must be a JSON object');
  }
  const next: LogSettings = { ...now };
  for (const [name, value] of Object.entries(changes as Record<string, unknown>)) {
    const wrong = (expected: string): InvalidInputError =>
      new InvalidInputError(`${name}: expected ${expected}, got ${JSON.stringify(value)}`);
    switch (name) {
      case 'log_info':
      case 'log_warning':
      case 'log_error':
        if (typeof value !== 'boolean') throw wrong('true or false');
        next[name] = value;
        break;
      case 'log_verbose_level':
        if (!Number.isSafeInteger(value) || (value as number) < 0) throw wrong('0 or more');
        next[name] = value as number;
        break;
      case 'log_format':
        if (value !== 'default') throw wrong('"default", the only one there is');
        break;
      case 'log_file':
        if (value !== '') throw wrong('"": the log goes to standard output');
        break;
      default:
        throw new InvalidInputError(
          `"${name}" is no log setting; they are ${Object.keys(now).join(', ')}`,
        );
    }
  }
  return next;
}
