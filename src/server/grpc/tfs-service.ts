// The gRPC server of TensorFlow Serving's protocol: PredictionService and ModelService.
import type { ServerUnaryCall } from '@grpc/grpc-js';
import type { Servable } from '../../catalog/model-servable.js';
import { InvalidInputError } from '../../errors.js';
import { signatureDefs } from '../../protocol/tfs/describe.js';
import {
  classesOf,
  examplesOf,
  regressionsOf,
  tensorsOfExamples,
} from '../../protocol/tfs/examples.js';
import { decodeGrpcPredict, encodeGrpcPredict } from '../../protocol/tfs/grpc.js';
import { decodeReload } from '../../protocol/tfs/reload.js';
import { checkSignature, SIGNATURE } from '../../protocol/tfs/rest.js';
import { find } from '../../serving/about.js';
import { checkControl, type ControlOptions } from '../../serving/access.js';
import { Burst } from '../../serving/burst.js';
import { explicitRepository, serveOnly } from '../../serving/control.js';
import type { Serving } from '../../serving/serving.js';
import { runServable, statusesOf } from '../../serving/tfs.js';
import type { Tensor } from '../../tensor.js';
import { addHealth, HEALTH } from './health.js';
import { addReflection, inBytes, loadPackage, messageOf, serviceOf } from './protos.js';
import {
  cancelledSignal,
  GrpcServer,
  handler,
  handlers,
  millisecondsLeft,
  type Fields,
} from './server.js';

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

export interface TfsGrpcServerOptions extends ControlOptions {
  /** Limit on a message, in bytes, both ways. Default 64 MiB. */
  messageLimitBytes?: number;
}

/**
 * A gRPC server of TensorFlow Serving's protocol over an engine's models: Predict, Classify, Regress,
 * GetModelMetadata, GetModelStatus, HandleReloadConfigRequest; grpc.health.v1 and server reflection.
 */
export function createTfsGrpcServer(
  serving: Serving,
  options: TfsGrpcServerOptions = {},
): GrpcServer {
  checkControl(options);
  const { catalog } = serving;
  const server = new GrpcServer(options.messageLimitBytes);
  const burst = new Burst();
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
      concurrent: burst.count(),
      timeoutMs: millisecondsLeft(call),
      outputs,
    });
  const onExamples = (
    answer: (servable: Servable, values: Record<string, Tensor>) => object,
  ): ReturnType<typeof handler> =>
    handler<Fields, object>(async (call) => {
      const servable = find(catalog, specOf(call.request));
      const inputs = tensorsOfExamples(examplesOf(call.request), servable.model.inputs);
      const result = answer(servable, await run(call, servable, inputs));
      return { model_spec: specOfServable(servable), result };
    });

  server.add(inBytes(serviceOf(definition, PREDICTION), 'Predict'), {
    Predict: handler<Buffer, Buffer>(async (call) => {
      const { inputs, outputs, ...spec } = decodeGrpcPredict(
        call.request,
        (named) => find(catalog, named).model.inputs,
      );
      const servable = find(catalog, spec);
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
        const servable = find(catalog, specOf(request));
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
        model_version_status: await statusesOf(serving, specOf(request)),
      }),
    }),
    ...handlers(
      {
        HandleReloadConfigRequest: async (request) => {
          const repository = explicitRepository(serving);
          await serveOnly(serving, repository, decodeReload(request, repository.folder));
          return { status: { error_code: 'OK', error_message: '' } };
        },
      },
      server.guard(options),
    ),
  });
  addHealth(server, serviceOf(definition, HEALTH), serving, [PREDICTION, MODEL]);
  addReflection(server.transport, definition);
  return server;
}
