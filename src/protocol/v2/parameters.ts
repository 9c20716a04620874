// Parameters of requests, inputs and outputs.
//
// Source: Triton's "Parameters" and "Schedule Policy" extension documents.

/** Parameters as plain values, whichever way they came. */
export type Parameters = Readonly<Record<string, unknown>>;

/** What a request's parameters say to the scheduler. */
export function schedulingOf(parameters: Parameters): { priority?: number; timeoutMs?: number } {
  const priority = parameters['priority'];
  const timeoutUs = parameters['timeout'];
  return {
    // 0 is Triton's "default"; what is beyond our levels is the last of them.
    ...(Number.isInteger(priority) &&
      (priority as number) > 0 && { priority: Math.min(priority as number, 8) }),
    ...(typeof timeoutUs === 'number' && timeoutUs > 0 && { timeoutMs: timeoutUs / 1000 }),
  };
}
