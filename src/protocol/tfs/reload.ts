// TensorFlow Serving's HandleReloadConfigRequest: the models to be served, and no others.
//
// Source: TensorFlow Serving's model_management.proto and model_server_config.proto.
import path from 'node:path';
import { InvalidInputError } from '../../errors.js';

interface ReloadedModel {
  name: string;
  base_path: string;
  model_platform: string;
  model_version_policy?: {
    policy_choice?: 'latest' | 'all' | 'specific';
    latest?: { num_versions: number };
    specific?: { versions: number[] };
  } | null;
  version_labels: Record<string, number>;
}

/** A model that is to be served. */
export interface ListedModel {
  readonly name: string;
  /** A model.json; undefined: what the repository has. */
  readonly config: string | undefined;
}

/** What a model's entry says of its versions. */
function configOf(model: ReloadedModel): string | undefined {
  const { model_version_policy: policy, version_labels: labels } = model;
  const choice = policy?.policy_choice;
  const versions =
    choice === 'all'
      ? 'all'
      : choice === 'latest'
        ? { latest: policy!.latest!.num_versions }
        : choice === 'specific'
          ? { specific: policy!.specific!.versions }
          : undefined;
  if (versions === undefined && Object.keys(labels).length === 0) return undefined;
  return JSON.stringify({ ...(versions && { versions }), labels });
}

/**
 * Reads the request, a message of protocol buffers as a plain object.
 *
 * @param root the repository's folder, where every model must be
 * @throws InvalidInputError for an entry that is none of the repository's
 */
export function decodeReload(request: Record<string, unknown>, root: string): ListedModel[] {
  const config = request['config'] as { model_config_list?: { config: ReloadedModel[] } } | null;
  if (!config?.model_config_list) {
    throw new InvalidInputError('config: expected a model_config_list');
  }
  const models = config.model_config_list.config;
  for (const { name, base_path: base, model_platform: platform } of models) {
    const folder = path.join(root, name);
    if (base !== '' && path.resolve(base) !== folder) {
      throw new InvalidInputError(
        `model "${name}": base_path "${base}" is not the repository's, "${folder}"`,
      );
    }
    if (platform !== '' && platform !== 'onnx') {
      throw new InvalidInputError(`model "${name}": model_platform "${platform}" is not "onnx"`);
    }
  }
  return models.map((model) => ({ name: model.name, config: configOf(model) }));
}
