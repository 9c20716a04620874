// Who may import whom in src/: docs/architecture.md draws it. `npm run check` holds it.

/** Each room with the rooms it may import besides itself; a file at the root is a room of its own. */
const rooms = {
  // Leaves.
  'errors.ts': [],
  'version.ts': [],
  'tensor.ts': ['errors.ts'],
  'names.ts': ['errors.ts'],
  'protobuf.ts': ['errors.ts'],
  'types/': ['errors.ts', 'tensor.ts'],
  'options/': ['errors.ts', 'types/'],
  'native.ts': ['errors.ts', 'types/'],

  // What faces the addon; what reads model files.
  'runtime/': ['errors.ts', 'names.ts', 'tensor.ts', 'types/', 'options/', 'native.ts'],
  'onnx/': ['errors.ts', 'tensor.ts', 'protobuf.ts'],

  // What is served; how it is spoken of.
  'catalog/': ['errors.ts', 'types/', 'tensor.ts', 'native.ts', 'runtime/', 'onnx/'],
  'protocol/': ['errors.ts', 'names.ts', 'tensor.ts', 'types/', 'protobuf.ts', 'runtime/json-'],

  'repository/': ['errors.ts', 'tensor.ts', 'types/', 'catalog/'],
  'serving/': [
    'errors.ts',
    'names.ts',
    'version.ts',
    'tensor.ts',
    'types/',
    'runtime/',
    'catalog/',
    'repository/',
    'protocol/',
  ],

  // The public doors.
  'engine.ts': [
    'errors.ts',
    'tensor.ts',
    'types/',
    'native.ts',
    'runtime/',
    'catalog/',
    'repository/',
    'serving/',
  ],
  'onnxruntime.ts': ['tensor.ts', 'types/', 'runtime/', 'catalog/'],
  'index.ts': [
    'errors.ts',
    'version.ts',
    'tensor.ts',
    'types/',
    'runtime/',
    'catalog/',
    'repository/',
    'serving/',
    'server/',
    'engine.ts',
  ],

  // Sockets in, exchanges out. Servers are given what they serve: never engine.ts.
  'server/': [
    'errors.ts',
    'version.ts',
    'tensor.ts',
    'types/',
    'protocol/',
    'serving/',
    'runtime/lease.ts',
  ],

  // A client must work without the addon.
  'client/': ['errors.ts', 'tensor.ts', 'protocol/v2/datatypes.ts'],

  'platform/': ['errors.ts', 'version.ts', 'types/', 'runtime/'],
  'measure/': [
    'errors.ts',
    'tensor.ts',
    'types/',
    'protobuf.ts',
    'native.ts',
    'runtime/',
    'onnx/',
    'catalog/',
    'protocol/',
    'client/',
    'platform/',
  ],

  'ops/': ['errors.ts', 'types/', 'runtime/', 'repository/', 'serving/', 'server/', 'engine.ts'],
  'cli/': ['errors.ts', 'version.ts', 'client/', 'measure/', 'platform/', 'ops/'],
};

/** Packages that one part of the house alone knows. */
const packages = {
  '^(fastify|@fastify/.*)$': 'server/http/',
  '^@grpc/': 'server/grpc/',
  '^piscina$': 'pipeline/pool.ts',
  '^undici$': 'client/',
  '^commander$': 'cli/',
};

const escape = (path) => `^src/${path.replace(/[.]/g, '\\.')}`;

const roomRules = Object.entries(rooms).map(([room, below]) => ({
  name: `${room} may import ${below.join(', ') || 'nothing of ours'}`,
  severity: 'error',
  from: { path: escape(room) },
  to: { path: '^src/', pathNot: [room, ...below].map(escape) },
}));

const packageRules = Object.entries(packages).map(([name, owner]) => ({
  name: `only ${owner} knows ${name}`,
  severity: 'error',
  from: { path: '^src/', pathNot: escape(owner) },
  to: { path: name.replace(/^\^/, '^(node_modules/)?').replace(/\$$/, '(/|$)') },
}));

export default {
  forbidden: [
    {
      name: 'no circles',
      severity: 'error',
      from: {},
      to: { circular: true },
    },
    {
      name: 'every file is in a room: add new ones here and to docs/architecture.md',
      severity: 'error',
      from: { path: '^src/', pathNot: Object.keys(rooms).map(escape) },
      to: {},
    },
    ...roomRules,
    ...packageRules,
  ],
  options: {
    doNotFollow: { path: 'node_modules' },
    tsPreCompilationDeps: true, // imports of types are imports
    tsConfig: { fileName: 'tsconfig.json' },
    enhancedResolveOptions: { exportsFields: ['exports'], conditionNames: ['import', 'node'] },
  },
};
