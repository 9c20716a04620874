// What there is to say of what is served: servables by name, their descriptions and statistics.
import { statsOf } from '../catalog/tally.js';
import { modelStatistics } from '../protocol/v2/describe.js';
import { version } from '../version.js';
import { findServable } from './find.js';
import type { Serving } from './serving.js';

/** A model as a request names it. */
export interface ModelParams {
  model: string;
  version?: string;
}

/** What the server can do besides the protocol's core. */
export function serverMetadata(sharedMemory: boolean): {
  name: string;
  version: string;
  extensions: string[];
} {
  const extensions = [
    'binary_tensor_data',
    'classification',
    'logging',
    'model_configuration',
    'model_repository',
    'parameters',
    'schedule_policy',
    'statistics',
    ...(sharedMemory ? ['system_shared_memory'] : []),
  ];
  return { name: 'tercel', version, extensions };
}

/** Statistics of all versions of a model, or of one; of all models where none is named. */
export function statisticsOf(serving: Serving, params?: ModelParams): object {
  const { catalog } = serving;
  const names = params
    ? [findServable(serving, params.model, params.version).name]
    : catalog.names();
  const servables =
    params?.version !== undefined
      ? [findServable(serving, params.model, params.version)]
      : names.flatMap((name) => catalog.versions(name).map((v) => catalog.find(name, v)!));
  return modelStatistics(
    servables.map((servable) => ({
      name: servable.name,
      version: servable.version,
      stats: statsOf(servable),
    })),
  );
}
