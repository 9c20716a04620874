// What a model takes, as its server says.
import { InvalidInputError } from '../../errors.js';
import { ProtoReader, ProtoWriter } from '../../protobuf.js';
import { tfTypes } from '../../protocol/tfs/describe.js';
import { dtypeOfName } from '../../protocol/v2/datatypes.js';
import type { DType } from '../../tensor.js';
import { unary, withSession } from './grpc.js';
import type { InputSpec } from './inputs.js';
import { pathOf, unreachable, type ServerOptions } from './servers.js';
import { tfSpec } from './subject.js';

async function getJson(
  url: URL,
  path: string,
  headers: Readonly<Record<string, string>>,
): Promise<unknown> {
  let answer: Response;
  let text: string;
  try {
    answer = await fetch(new URL(path, url), { headers, signal: AbortSignal.timeout(10_000) });
    text = await answer.text();
  } catch (cause) {
    throw unreachable(url, cause);
  }
  if (!answer.ok) {
    throw new InvalidInputError(
      `${url.origin}${path} answered ${answer.status}: ${text.slice(0, 300)}`,
    );
  }
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new InvalidInputError(`${url.origin}${path} answered no JSON: ${text.slice(0, 100)}`, {
      cause,
    });
  }
}

function oipSpec({
  name,
  datatype,
  shape,
}: {
  name: string;
  datatype: string;
  shape: (number | string)[];
}): InputSpec {
  // A shape in JSON may have its 64-bit numbers as strings, and has -1 where a dimension is dynamic.
  return {
    name,
    dtype: dtypeOfName(datatype, `input "${name}"`),
    shape: shape.map(Number),
  };
}

interface TfInfo {
  dtype?: string;
  tensor_shape?: { dim?: { size?: string | number }[] };
}

function tfDType(name: string, type: string | number): DType {
  const found = Object.entries(tfTypes).find(([, known]) => known.includes(type as never));
  if (!found) throw new InvalidInputError(`input "${name}": no tensors of ${type}`);
  return found[0] as DType;
}

/** What a model takes, as the server says. */
export async function describeInputs(options: ServerOptions): Promise<InputSpec[]> {
  const { url, protocol, model, version, headers } = options;
  const path = pathOf(model, version);
  switch (protocol) {
    case 'oip-http': {
      const metadata = (await getJson(url, `/v2/models/${path}`, headers)) as {
        inputs: Parameters<typeof oipSpec>[0][];
      };
      return metadata.inputs.map(oipSpec);
    }
    case 'tfs-http': {
      const answer = (await getJson(url, `/v1/models/${path}/metadata`, headers)) as {
        metadata: {
          signature_def: { signature_def: Record<string, { inputs: Record<string, TfInfo> }> };
        };
      };
      const signature = answer.metadata.signature_def.signature_def['serving_default'];
      if (!signature)
        throw new InvalidInputError(`model "${model}" has no signature serving_default`);
      return Object.entries(signature.inputs).map(([name, info]) => ({
        name,
        dtype: tfDType(name, info.dtype ?? ''),
        shape: (info.tensor_shape?.dim ?? []).map(({ size }) => Number(size ?? -1)),
      }));
    }
    case 'oip-grpc': {
      const request = new ProtoWriter()
        .string(1, model)
        .string(2, version ?? '')
        .finish();
      return withSession(options, async (session) =>
        readOipMetadata(
          await unary(session, options, '/inference.GRPCInferenceService/ModelMetadata', request),
        ),
      );
    }
    case 'tfs-grpc': {
      const request = new ProtoWriter()
        .message(1, tfSpec(options))
        .string(2, 'signature_def')
        .finish();
      return withSession(options, async (session) =>
        readTfMetadata(
          await unary(
            session,
            options,
            '/tensorflow.serving.PredictionService/GetModelMetadata',
            request,
          ),
        ),
      );
    }
  }
}

function readOipMetadata(message: Uint8Array): InputSpec[] {
  const specs: InputSpec[] = [];
  const reader = new ProtoReader(message);
  while (reader.next()) {
    if (reader.field !== 4) {
      reader.skip();
      continue;
    }
    const input = reader.message();
    const spec = { name: '', datatype: '', shape: [] as number[] };
    while (input.next()) {
      if (input.field === 1) spec.name = input.string();
      else if (input.field === 2) spec.datatype = input.string();
      else if (input.field === 3) input.repeated((raw) => spec.shape.push(raw.rawSafeInt64()));
      else input.skip();
    }
    specs.push(oipSpec(spec));
  }
  return specs;
}

/** Walks down fields of messages, each but the last by its number. */
function* within(reader: ProtoReader, field: number): Generator<ProtoReader> {
  while (reader.next()) {
    if (reader.field === field) yield reader.message();
    else reader.skip();
  }
}

/** GetModelMetadataResponse: metadata (2) of Any by name, whose value is a SignatureDefMap. */
function readTfMetadata(message: Uint8Array): InputSpec[] {
  const specs: InputSpec[] = [];
  for (const entry of within(new ProtoReader(message), 2)) {
    for (const any of within(entry, 2)) {
      for (const value of within(any, 2)) {
        for (const signature of within(value, 1)) {
          let name = '';
          while (signature.next()) {
            if (signature.field === 1) name = signature.string();
            else if (signature.field === 2 && name === 'serving_default') {
              for (const input of within(signature.message(), 1)) specs.push(readTfInput(input));
            } else signature.skip();
          }
        }
      }
    }
  }
  return specs;
}

function readTfInput(entry: ProtoReader): InputSpec {
  let name = '';
  let dtype = 0;
  const shape: number[] = [];
  while (entry.next()) {
    if (entry.field === 1) name = entry.string();
    else if (entry.field === 2) {
      const info = entry.message();
      while (info.next()) {
        if (info.field === 2) dtype = info.int64();
        else if (info.field === 3) {
          for (const dim of within(info.message(), 2)) {
            let size = 0;
            while (dim.next()) {
              if (dim.field === 1) size = dim.int64();
              else dim.skip();
            }
            shape.push(size);
          }
        } else info.skip();
      }
    } else entry.skip();
  }
  return { name, dtype: tfDType(name, dtype), shape };
}
