// Which of the versions that are there are served.
import type { VersionPolicy } from '../catalog/model-config.js';

/** The versions that a policy serves, of those that are there. */
export function wantedVersions(policy: VersionPolicy, there: readonly string[]): string[] {
  const sorted = [...there].sort((a, b) => Number(a) - Number(b));
  if (policy === 'all') return sorted;
  if ('latest' in policy) return sorted.slice(-policy.latest);
  return sorted.filter((version) => policy.specific.includes(Number(version)));
}
