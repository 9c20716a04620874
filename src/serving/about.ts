// What there is to say of what is served: servables by name, their descriptions and statistics.
import type { Catalog } from '../catalog/catalog.js';
import type { Servable } from '../catalog/model-servable.js';
import { modelStatistics, type DescribedModel } from '../protocol/v2/describe.js';
import { version } from '../version.js';
import { HttpError } from './errors.js';

/** A model as a request names it. */
export interface ModelParams {
  model: string;
  version?: string;
}

/** The servable that a request names. Throws HttpError (404). */
export function find(catalog: Catalog, { model, version: wanted }: ModelParams): Servable {
  const servable = catalog.find(model, wanted);
  if (servable) return servable;
  const versions = catalog.versions(model);
  throw new HttpError(
    404,
    versions.length
      ? `model "${model}" has no version ${wanted}; it has ${versions.join(', ')}`
      : `model "${model}" does not exist`,
  );
}

/** What the codecs want to know of a model. */
export function describe({ name, version, model, config }: Servable): DescribedModel {
  return {
    name,
    version,
    inputs: model.inputs,
    outputs: model.outputs,
    stats: model.stats(),
    file: config.file,
    maxBatchSize: config.maxBatchSize,
    versions: config.versions,
    labels: config.labels,
    providers: model.providers,
  };
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
export function statisticsOf(catalog: Catalog, params?: ModelParams): object {
  const names = params ? [find(catalog, params).name] : catalog.names();
  const servables =
    params?.version !== undefined
      ? [find(catalog, params)]
      : names.flatMap((name) => catalog.versions(name).map((v) => catalog.find(name, v)!));
  // Kept by nobody else: the time of the last request is not worth a clock read for each.
  return modelStatistics(servables.map((servable) => ({ ...describe(servable), lastMs: 0 })));
}
