// The gRPC server of TensorFlow Serving's protocol: PredictionService and ModelService.
import path from 'node:path';
import type { ServerUnaryCall } from '@grpc/grpc-js';
import type { Engine } from '../../engine.js';
import type { Servable } from '../../catalog/model-servable.js';
import { InvalidInputError } from '../../errors.js';
import { textOf } from '../../protocol/v2/datatypes.js';
import { decodeGrpcPredict, encodeGrpcPredict } from '../../protocol/tfs/grpc.js';
import { signatureDefs } from '../../protocol/tfs/describe.js';
import { classesOf, regressionsOf, tensorsOfExamples } from '../../protocol/tfs/examples.js';
import { checkSignature, SIGNATURE } from '../../protocol/tfs/rest.js';
import type { Tensor } from '../../tensor.js';
import { Arrivals } from '../../serving/burst.js';
import {
  checkControl,
  explicitOnly,
  repositoryOf,
  type ControlOptions,
} from '../../serving/control.js';
import { addHealth, HEALTH } from './health.js';
import {
  cancelledSignal,
  GrpcServer,
  handler,
  handlers,
  millisecondsLeft,
  type Fields,
} from './server.js';
import { find } from '../../serving/about.js';
import { addReflection, inBytes, loadPackage, messageOf, serviceOf } from './protos.js';
import { runServable, statusesOf } from '../http/tfs-routes.js';

const PREDICTION = 'tensorflow.serving.PredictionService';
const MODEL = 'tensorflow.serving.ModelService';

/** The model that a ModelSpec names. Throws HttpError (404), InvalidInputError for the signature. */
function specOf(request: Fields): { model: string; version?: string } {
  const spec = (request['model_spec'] ?? {}) as Fields;
  checkSignature(spec['signature_name']);
  const choice = spec['version_choice'];
  const version =
    choice === 'version'
      ? String((spec['version'] as { value: number }).value)
      : choice === 'version_label'
        ? String(spec['version_label'])
        : undefined;
  return {
    model: (spec['name'] as string | undefined) ?? '',
    ...(version !== undefined && { version }),
  };
}

function specOfServable({ name, version }: Servable): object {
  return { name, version: { value: Number(version) }, signature_name: SIGNATURE };
}

type Features = { feature?: Record<string, Fields> } | undefined;

/** The features of a classify or regress request, by example. Throws InvalidInputError. */
function examplesOf(request: Fields): Map<string, unknown[]>[] {
  const input = (request['input'] ?? {}) as Fields;
  const list = (input['example_list'] ?? input['example_list_with_context']) as
    { examples: { features: Features }[]; context?: { features: Features } } | undefined;
  if (!list || list.examples.length === 0) {
    throw new InvalidInputError('input: expected a list of one example or more');
  }
  const features = (of: Features): [string, unknown[]][] =>
    Object.entries(of?.feature ?? {}).map(([name, feature]) => {
      const kind = feature['kind'] as string | undefined;
      const values = (feature[kind ?? ''] as { value: unknown[] } | undefined)?.value ?? [];
      return [
        name,
        kind === 'bytes_list'
          ? (values as Buffer[]).map((bytes) => textOf(bytes, `feature "${name}"`))
          : values,
      ];
    });
  const context = features(list.context?.features);
  return list.examples.map((example) => new Map([...context, ...features(example.features)]));
}

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

/** What a model's entry says of its versions, as a model.json; undefined: what the repository has. */
function reloadedConfig(model: ReloadedModel): string | undefined {
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
 * Makes the repository serve the listed models and no others.
 *
 * @throws InvalidInputError for an entry that is none of the repository's; nothing was changed then
 */
async function reload(engine: Engine, request: Fields): Promise<object> {
  const repository = repositoryOf(engine);
  explicitOnly(repository);
  const config = request['config'] as { model_config_list?: { config: ReloadedModel[] } } | null;
  if (!config?.model_config_list) {
    throw new InvalidInputError('config: expected a model_config_list');
  }
  const models = config.model_config_list.config;
  for (const { name, base_path: base, model_platform: platform } of models) {
    const folder = path.join(repository.folder, name);
    if (base !== '' && path.resolve(base) !== folder) {
      throw new InvalidInputError(
        `model "${name}": base_path "${base}" is not the repository's, "${folder}"`,
      );
    }
    if (platform !== '' && platform !== 'onnx') {
      throw new InvalidInputError(`model "${name}": model_platform "${platform}" is not "onnx"`);
    }
  }
  for (const model of models) {
    const own = reloadedConfig(model);
    await repository.load(model.name, own === undefined ? {} : { config: own });
  }
  const listed = new Set(models.map(({ name }) => name));
  const others = engine.names().filter((name) => !listed.has(name));
  await Promise.all(others.map((name) => repository.unload(name)));
  return { status: { error_code: 'OK', error_message: '' } };
}

export interface TfsGrpcServerOptions extends ControlOptions {
  /** Limit on a message, in bytes, both ways. Default 64 MiB. */
  messageLimitBytes?: number;
}

/**
 * A gRPC server of TensorFlow Serving's protocol over the engine's models: Predict, Classify, Regress,
 * GetModelMetadata, GetModelStatus, HandleReloadConfigRequest; grpc.health.v1 and server reflection.
 */
export function createTfsGrpcServer(
  engine: Engine,
  options: TfsGrpcServerOptions = {},
): GrpcServer {
  checkControl(options);
  const server = new GrpcServer(options.messageLimitBytes);
  const arrivals = new Arrivals();
  const definition = loadPackage('tensorflow_serving.proto', 'health.proto');
  const signatureMap = messageOf(definition, 'tensorflow.serving.SignatureDefMap');

  const run = (
    call: ServerUnaryCall<unknown, unknown>,
    servable: Servable,
    inputs: Record<string, Tensor>,
    outputs?: string[],
  ): Promise<Record<string, Tensor>> =>
    runServable(servable, inputs, {
      signal: cancelledSignal(call),
      concurrent: arrivals.count(),
      timeoutMs: millisecondsLeft(call),
      outputs,
    });
  const onExamples = (
    answer: (servable: Servable, values: Record<string, Tensor>) => object,
  ): ReturnType<typeof handler> =>
    handler<Fields, object>(async (call) => {
      const servable = find(engine, specOf(call.request));
      const inputs = tensorsOfExamples(examplesOf(call.request), servable.model.inputs);
      const result = answer(servable, await run(call, servable, inputs));
      return { model_spec: specOfServable(servable), result };
    });

  server.add(inBytes(serviceOf(definition, PREDICTION), 'Predict'), {
    Predict: handler<Buffer, Buffer>(async (call) => {
      const { inputs, outputs, ...spec } = decodeGrpcPredict(
        call.request,
        (named) => find(engine, named).model.inputs,
      );
      const servable = find(engine, spec);
      return encodeGrpcPredict(servable, await run(call, servable, inputs, outputs));
    }),
    Classify: onExamples((servable, values) => ({
      classifications: classesOf(values, servable.config.classNames).map((classes) => ({
        classes,
      })),
    })),
    Regress: onExamples((_servable, values) => ({
      regressions: Array.from(regressionsOf(values).data as Float32Array, (value) => ({ value })),
    })),
    ...handlers({
      GetModelMetadata: (request) => {
        const fields = request['metadata_field'] as string[];
        const unknown = fields.find((field) => field !== 'signature_def');
        if (unknown !== undefined || fields.length === 0) {
          throw new InvalidInputError(
            `metadata_field: expected "signature_def", got ${JSON.stringify(unknown ?? [])}`,
          );
        }
        const servable = find(engine, specOf(request));
        const { inputs, outputs } = servable.model;
        return {
          model_spec: specOfServable(servable),
          metadata: {
            signature_def: {
              type_url: 'type.googleapis.com/tensorflow.serving.SignatureDefMap',
              value: signatureMap({ signature_def: signatureDefs(inputs, outputs) }),
            },
          },
        };
      },
    }),
  });
  server.add(serviceOf(definition, MODEL), {
    ...handlers({
      GetModelStatus: async (request) => ({
        model_version_status: await statusesOf(engine, specOf(request)),
      }),
    }),
    ...handlers(
      { HandleReloadConfigRequest: (request) => reload(engine, request) },
      server.guard(options),
    ),
  });
  addHealth(server, serviceOf(definition, HEALTH), engine, [PREDICTION, MODEL]);
  addReflection(server.transport, definition);
  return server;
}
