// Control: the repository's index, and what may be loaded and unloaded.
import { InvalidInputError } from '../errors.js';
import type { ListedModel } from '../protocol/tfs/reload.js';
import type { IndexEntry } from '../repository/records.js';
import type { Repository } from '../repository/repository.js';
import type { Serving } from './serving.js';

/** The repository's index; without one, what is served. */
export async function indexOf(
  { catalog, repository }: Serving,
  onlyReady: boolean,
): Promise<IndexEntry[]> {
  const listed = (await repository?.index(onlyReady)) ?? [];
  // And what the program loaded or registered by itself.
  const known = new Set(listed.map(({ name, version }) => JSON.stringify([name, version])));
  const others = catalog.list().filter(({ name, version, state }) => {
    return !known.has(JSON.stringify([name, version])) && (state === 'READY' || !onlyReady);
  });
  return [...listed, ...others.map((entry) => ({ ...entry, reason: '' }))];
}

/**
 * The repository, where clients may load and unload.
 *
 * @throws InvalidInputError without a repository, or with another model control than 'explicit'
 */
export function explicitRepository({ repository }: Serving): Repository {
  if (!repository) throw new InvalidInputError('the server has no model repository');
  const { control } = repository;
  if (control === 'explicit') return repository;
  throw new InvalidInputError(
    `explicit model load and unload are not allowed with model control "${control}"`,
  );
}

/** Makes the repository serve the listed models and no others. */
export async function serveOnly(
  serving: Serving,
  repository: Repository,
  listed: readonly ListedModel[],
): Promise<void> {
  for (const { name, config } of listed) {
    await repository.load(name, config === undefined ? {} : { config });
  }
  const names = new Set(listed.map(({ name }) => name));
  const others = serving.catalog.names().filter((name) => !names.has(name));
  await Promise.all(others.map((name) => repository.unload(name)));
}
