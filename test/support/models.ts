// Small models made for one question each, and the models that an engine serves.
import { ModelServable, type Engine, type Model } from 'tercel';
import {
  encodeModel,
  FLOAT,
  floats,
  INT64,
  int64s,
  STRING,
  type Graph,
  type Type,
} from '../../models/onnx.js';

/** y = x for a tensor of any type. */
export function identity(elemType: number, shape: (number | string)[] = ['n']): Uint8Array {
  const type: Type = { tensor: elemType, shape };
  return encodeModel({
    name: 'identity',
    inputs: { x: type },
    outputs: { y: type },
    nodes: [{ op: 'Identity', inputs: ['x'], outputs: ['y'] }],
  });
}

const floatSequence: Type = { sequence: { tensor: FLOAT } };

/** Sequence in, sequence out, with its length. */
export function sequences(): Uint8Array {
  return encodeModel({
    name: 'sequences',
    inputs: { s: floatSequence, extra: { tensor: FLOAT, shape: ['n'] } },
    outputs: { longer: floatSequence, length: { tensor: INT64, shape: [] } },
    nodes: [
      { op: 'SequenceInsert', inputs: ['s', 'extra'], outputs: ['longer'] },
      { op: 'SequenceLength', inputs: ['longer'], outputs: ['length'] },
    ],
  });
}

/** A classifier's last step: scores to a sequence of maps. */
export function zipMap(): Uint8Array {
  return encodeModel({
    name: 'zipmap',
    inputs: { scores: { tensor: FLOAT, shape: ['n', 3] } },
    outputs: { maps: { sequence: { map: { key: STRING, value: { tensor: FLOAT } } } } },
    domains: { 'ai.onnx.ml': 1 },
    nodes: [
      {
        op: 'ZipMap',
        domain: 'ai.onnx.ml',
        inputs: ['scores'],
        outputs: ['maps'],
        attributes: { classlabels_strings: { strings: ['cat', 'dog', 'cow'] } },
      },
    ],
  });
}

/** An optional output that is there or not. */
export function optionalOutput(present: boolean): Uint8Array {
  const tensor: Type = { tensor: FLOAT, shape: ['n'] };
  const node = present
    ? { op: 'Optional', inputs: ['x'], outputs: ['y'] }
    : { op: 'Optional', inputs: [], outputs: ['y'], attributes: { type: { type: tensor } } };
  const graph: Graph = {
    name: 'optional',
    inputs: { x: tensor },
    outputs: { y: { optional: tensor } },
    nodes: [node],
  };
  return encodeModel(graph);
}

/** An optional input: its value doubled, or nothing when it was left out. */
export function optionalInput(): Uint8Array {
  const tensor: Type = { tensor: FLOAT, shape: ['n'] };
  return encodeModel({
    name: 'optional-input',
    inputs: { x: { optional: tensor } },
    outputs: { y: tensor },
    nodes: [{ op: 'OptionalGetElement', inputs: ['x'], outputs: ['y'] }],
  });
}

/** The declared output shape is wrong on purpose: [n], where the run gives [2n]. */
export function liar(): Uint8Array {
  const tensor: Type = { tensor: FLOAT, shape: ['n'] };
  return encodeModel({
    name: 'liar',
    inputs: { x: tensor },
    outputs: { y: tensor },
    nodes: [{ op: 'Concat', inputs: ['x', 'x'], outputs: ['y'], attributes: { axis: 0 } }],
  });
}

/** Fails while it runs, for an index that is out of range. */
export function gather(): Uint8Array {
  return encodeModel({
    name: 'gather',
    inputs: { x: { tensor: FLOAT, shape: ['n'] }, at: { tensor: INT64, shape: ['k'] } },
    outputs: { y: { tensor: FLOAT, shape: ['k'] } },
    nodes: [{ op: 'Gather', inputs: ['x', 'at'], outputs: ['y'] }],
  });
}

/** y = table[at], a table of 0.5, 1.5 and 2.5: an index out of range fails while it runs. */
export function lookup(): Uint8Array {
  return encodeModel({
    name: 'lookup',
    inputs: { at: { tensor: INT64, shape: ['n'] } },
    outputs: { y: { tensor: FLOAT, shape: ['n'] } },
    initializers: [floats('table', [3], Float32Array.of(0.5, 1.5, 2.5))],
    nodes: [{ op: 'Gather', inputs: ['table', 'at'], outputs: ['y'] }],
  });
}

/**
 * Loops over a small matrix product `rounds` times: a run as long as one likes, that notices
 * termination between two nodes.
 */
export function slow(): Uint8Array {
  const tensor: Type = { tensor: FLOAT, shape: [64, 64] };
  return encodeModel({
    name: 'slow',
    inputs: { x: tensor, rounds: { tensor: INT64, shape: [] } },
    outputs: { y: tensor },
    initializers: [int64s('unused', [1], [0])],
    nodes: [
      {
        op: 'Loop',
        inputs: ['rounds', '', 'x'],
        outputs: ['y'],
        attributes: {
          body: {
            graph: {
              name: 'body',
              inputs: {
                i: { tensor: INT64, shape: [] },
                go_on: { tensor: 9, shape: [] },
                state: tensor,
              },
              outputs: { still: { tensor: 9, shape: [] }, next: tensor },
              nodes: [
                { op: 'Identity', inputs: ['go_on'], outputs: ['still'] },
                { op: 'MatMul', inputs: ['state', 'state'], outputs: ['squared'] },
                { op: 'Tanh', inputs: ['squared'], outputs: ['next'] },
              ],
            },
          },
        },
      },
    ],
  });
}

/** A sum over rows, spread over 1,000 columns: the output is as tall as the input. */
export function reduce(): Uint8Array {
  return encodeModel({
    name: 'reduce',
    inputs: { x: { tensor: FLOAT, shape: ['rows', 'columns'] } },
    outputs: { y: { tensor: FLOAT, shape: ['rows', 1000] } },
    initializers: [int64s('axes', [1], [1]), int64s('repeats', [2], [1, 1000])],
    nodes: [
      { op: 'ReduceSum', inputs: ['x', 'axes'], outputs: ['sums'] },
      { op: 'Tile', inputs: ['sums', 'repeats'], outputs: ['y'] },
    ],
  });
}

/** What an engine serves under a name, which is a model. */
export function servedModel(engine: Engine, name: string): ModelServable {
  const servable = engine.find(name);
  if (servable instanceof ModelServable) return servable;
  throw new Error(`no model "${name}" is served`);
}

export function modelOf(engine: Engine, name: string): Model {
  return servedModel(engine, name).model;
}
