// Every case that others made gives the expected outputs, by each of the three ways to run a model.
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import ort from 'onnxruntime-node';
import { loadModel, type Model, type Tensor } from 'tercel';
import { describe, expect, it } from 'vitest';
import { decodeInputs } from '../../models/onnx.js';
import {
  dataSetCases,
  difference,
  hasSharedModels,
  lightCases,
  type ConformanceCase,
} from '../support/shared.js';

/** What ONNX Runtime 1.30 itself refuses, with its words: versions of operators that it left behind. */
const refused: Record<string, RegExp> = {
  test_gradient_of_add: /Gradient/,
  test_gradient_of_add_and_mul: /Gradient/,
  test_operator_add_broadcast: /Could not find an implementation for Add\(6\)/,
  test_operator_add_size1_broadcast: /Could not find an implementation for Add\(6\)/,
  test_operator_add_size1_right_broadcast: /Could not find an implementation for Add\(6\)/,
  test_operator_add_size1_singleton_broadcast: /Could not find an implementation for Add\(6\)/,
  test_operator_addconstant: /Could not find an implementation for Add\(6\)/,
  test_operator_addmm: /Could not find an implementation for Gemm\(6\)/,
  test_operator_basic: /Could not find an implementation for Add\(6\)/,
  test_operator_mm: /Could not find an implementation for Gemm\(6\)/,
  test_operator_non_float_params: /Could not find an implementation for Add\(6\)/,
  test_operator_params: /Could not find an implementation for Add\(6\)/,
  test_operator_pow: /Could not find an implementation for Pow\(1\)/,
};

/** StringNormalizer with a case change wants this locale of the system (Debian: package locales). */
const hasLocale = /en_US\.utf-?8/i.test(
  spawnSync('locale', ['-a'], { encoding: 'utf8' }).stdout ?? '',
);
if (!hasLocale) {
  for (const name of [
    'casesensintive_lower',
    'casesensintive_upper',
    'empty_output',
    'insensintive_upper_twodim',
  ]) {
    refused[`test_strnorm_model_monday_${name}`] =
      /Failed to construct locale with name:en_US\.UTF-8/;
  }
}

async function runEveryWay(model: Model, inputs: Record<string, Tensor>, outputs: Tensor[]) {
  const names = model.outputs.map((output) => output.name);
  const compare = (way: string, values: Readonly<Record<string, Tensor>>): void => {
    outputs.forEach((expected, i) => {
      expect(
        difference(values[names[i]!]!, expected),
        `${way}, output ${names[i]}`,
      ).toBeUndefined();
    });
  };
  compare('runSync', model.runSync(inputs));
  compare('run', await model.run(inputs));
  // Outputs of models without declared shapes depend on the data here, so they are given.
  const shapes = Object.fromEntries([
    ...Object.entries(inputs).map(([name, tensor]) => [name, tensor.shape]),
    ...outputs.map((tensor, i) => [names[i], tensor.shape]),
  ]) as Record<string, number[]>;
  const binding = model.bind(shapes);
  for (const [name, tensor] of Object.entries(inputs)) {
    const data = binding.inputs[name]!.data as Float32Array | string[];
    if (Array.isArray(data)) (tensor.data as string[]).forEach((text, i) => (data[i] = text));
    else data.set(tensor.data as Float32Array);
  }
  binding.runSync();
  compare('bind', binding.outputs);
  await binding.run();
  compare('bind, again by run()', binding.outputs);
  binding.close();
}

async function check({ name, model: file, inputs, outputs }: ConformanceCase): Promise<void> {
  if (refused[name]) {
    await expect(loadModel(file)).rejects.toThrow(refused[name]);
    // The same file and library without Tercel.
    await expect(ort.InferenceSession.create(file)).rejects.toThrow(refused[name]);
    return;
  }
  await using model = await loadModel(file);
  expect(inputs.length).toBe(model.inputs.length);
  await runEveryWay(
    model,
    Object.fromEntries(model.inputs.map((input, i) => [input.name, inputs[i]!])),
    outputs,
  );
}

describe.runIf(hasSharedModels)('models that others made', () => {
  describe.each(['onnx-simple', 'onnx-pytorch-operator'])('%s', (folder) => {
    const cases = hasSharedModels ? dataSetCases(folder) : [];
    it.each(cases.map((c) => [c.name, c] as const))('%s', (_name, c) => check(c));
    it('has the cases that we know of', () => {
      expect(cases.length).toBe(folder === 'onnx-simple' ? 23 : 35);
    });
  });

  describe('onnx-light', () => {
    const cases = hasSharedModels ? lightCases() : [];
    it.each(cases.map((c) => [c.name, c] as const))(
      '%s',
      async (_name, { model: file, output }) => {
        const wanted = decodeInputs(readFileSync(file));
        await using model = await loadModel(file);
        expect(model.inputs.map((input) => input.name)).toEqual(wanted.map((input) => input.name));
        // As ONNX's own runner makes them: 0/n, 1/n, 2/n, ...
        const inputs = Object.fromEntries(
          wanted.map(({ name, shape }) => {
            const n = shape.reduce((a, b) => a * b, 1);
            const tensor: Tensor = {
              dtype: 'float32',
              shape,
              data: Float32Array.from({ length: n }, (_, i) => i / n),
            };
            return [name, tensor];
          }),
        );
        await runEveryWay(model, inputs, [output]);
      },
    );
    it('has the cases that we know of', () => expect(cases.length).toBe(9));
  });
});
