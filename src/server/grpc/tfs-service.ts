// The gRPC server of TensorFlow Serving's protocol: PredictionService and ModelService.
import { InvalidInputError } from '../../errors.js';
import { planFor } from '../../protocol/plan.js';
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
import { explicitRepository, serveOnly } from '../../serving/control.js';
import { contextOf, type ServerBasics } from '../../serving/context.js';
import type { Serving } from '../../serving/serving.js';
import { statusesOf, tensorsOf } from '../../serving/tfs.js';
import type { Tensor } from '../../tensor.js';
import type { Servable } from '../../types/servable.js';
import { handler, handlers, type CallExchange, type Fields, type Method } from './call-exchange.js';
import { addHealth, HEALTH } from './health.js';
import { addReflection, inBytes, loadPackage, messageOf, serviceOf } from './protos.js';
import { GrpcServer } from './server.js';

const PREDICTION = 'tensorflow.serving.PredictionService';
const MODEL = 'tensorflow.serving.ModelService';

/** The model that a ModelSpec names. Throws InvalidInputError for the signature. */
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

export interface TfsGrpcServerOptions extends Omit<ServerBasics, 'allowSharedMemory'> {
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
  const { context, close } = contextOf(serving, options);
  const server = new GrpcServer(context, options.messageLimitBytes);
  server.onClose(close);
  const definition = loadPackage('tensorflow_serving.proto', 'health.proto');
  const signatureMap = messageOf(definition, 'tensorflow.serving.SignatureDefMap');
  const onExamples = (
    answer: (servable: Servable, values: Record<string, Tensor>) => object,
  ): ReturnType<typeof handler> =>
    handler<Fields, object>(server, 'infer', async (request, exchange) => {
      exchange.concurrent = serving.burst.count();
      const { model, version } = specOf(request);
      const servable = exchange.find(model, version);
      const inputs = tensorsOfExamples(examplesOf(request), servable.inputs);
      exchange.plan = planFor({});
      const values = tensorsOf(await exchange.values(servable, inputs));
      return { model_spec: specOfServable(servable), result: answer(servable, values) };
    });

  server.add(inBytes(serviceOf(definition, PREDICTION), 'Predict'), {
    Predict: handler<Buffer, Buffer>(server, 'infer', answerPredict),
    Classify: onExamples((servable, values) => ({
      classifications: classesOf(values, servable.about?.classNames ?? {}).map((classes) => ({
        classes,
      })),
    })),
    Regress: onExamples((_servable, values) => ({
      regressions: Array.from(regressionsOf(values).data as Float32Array, (value) => ({ value })),
    })),
    ...handlers(server, 'describe', { GetModelMetadata: metadataMethod(signatureMap) }),
  });
  server.add(serviceOf(definition, MODEL), {
    ...handlers(server, 'describe', {
      GetModelStatus: async (request) => ({
        model_version_status: await statusesOf(serving, specOf(request)),
      }),
    }),
    ...handlers(server, 'control', {
      HandleReloadConfigRequest: async (request) => {
        const repository = explicitRepository(serving);
        await serveOnly(serving, repository, decodeReload(request, repository.folder));
        return { status: { error_code: 'OK', error_message: '' } };
      },
    }),
  });
  addHealth(server, serviceOf(definition, HEALTH), [PREDICTION, MODEL]);
  addReflection(server.transport, definition);
  return server;
}

async function answerPredict(message: Buffer, exchange: CallExchange): Promise<Buffer> {
  exchange.concurrent = exchange.context.serving.burst.count();
  exchange.bytesIn = message.length;
  // The model is known before any tensor is read.
  const { inputs, outputs } = decodeGrpcPredict(
    message,
    ({ model, version }) => (exchange.servable = exchange.find(model, version)).inputs,
  );
  const servable = exchange.servable!;
  exchange.plan = planFor({ outputs: outputs?.map((name) => ({ name })) });
  const response = encodeGrpcPredict(servable, tensorsOf(await exchange.values(servable, inputs)));
  exchange.bytesOut = response.length;
  return response;
}

function metadataMethod(signatureMap: (fields: object) => Buffer): Method {
  return (request, exchange) => {
    const fields = request['metadata_field'] as string[];
    const unknown = fields.find((field) => field !== 'signature_def');
    if (unknown !== undefined || fields.length === 0) {
      throw new InvalidInputError(
        `metadata_field: expected "signature_def", got ${JSON.stringify(unknown ?? [])}`,
      );
    }
    const { model, version } = specOf(request);
    const servable = exchange.find(model, version);
    const { inputs, outputs } = servable;
    return {
      model_spec: specOfServable(servable),
      metadata: {
        signature_def: {
          type_url: 'type.googleapis.com/tensorflow.serving.SignatureDefMap',
          value: signatureMap({ signature_def: signatureDefs(inputs, outputs) }),
        },
      },
    };
  };
}
