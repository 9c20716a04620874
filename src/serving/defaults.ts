// What a model's configuration says of requests that do not say.
import type { ModelConfig } from '../catalog/model-config.js';
import type { RunOptions } from '../runtime/run-options.js';

/** A request's options, with what the model's configuration says of those that say nothing. */
export function withDefaults(
  config: ModelConfig,
  options: RunOptions | undefined,
): RunOptions | undefined {
  const { timeoutMs, priority, timeoutOverride } = config;
  if (timeoutMs === undefined && priority === undefined && timeoutOverride) return options;
  const own = timeoutOverride ? options?.timeoutMs : undefined;
  return {
    ...options,
    timeoutMs: own ?? timeoutMs,
    priority: options?.priority ?? priority,
  };
}
