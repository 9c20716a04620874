// Who may import whom in src/: docs/architecture.md draws it. `npm run check` holds it.

/** Each room with the rooms it may import besides itself; a file at the root is a room of its own. */
const rooms = {
  // Leaves.
  'errors.ts': [],
  'version.ts': [],
  'tensor.ts': ['errors.ts'],
  'protobuf.ts': ['errors.ts'],
  'types/': ['tensor.ts'],
  'options/': ['errors.ts', 'types/'],
  'native.ts': ['errors.ts', 'types/'],

  // What faces the addon; what reads model files.
  'runtime/': ['errors.ts', 'tensor.ts', 'types/', 'options/', 'native.ts'],
  'onnx/': ['errors.ts', 'tensor.ts', 'protobuf.ts'],

  // What is served; how it is spoken of.
  'catalog/': ['errors.ts', 'types/', 'tensor.ts', 'native.ts', 'runtime/', 'onnx/'],
  'protocol/': ['errors.ts', 'tensor.ts', 'types/', 'protobuf.ts', 'runtime/json-'],

  'repository/': ['errors.ts', 'tensor.ts', 'types/', 'catalog/'],
  'serving/': [
    'errors.ts',
    'version.ts',
    'tensor.ts',
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
  'server/': ['errors.ts', 'version.ts', 'tensor.ts', 'protocol/', 'serving/', 'runtime/lease.ts'],

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

/** Imports that the rooms do not allow and that stay until requests have one life (docs/architecture.md). */
const exceptions = [
  // Requests are parsed and answers printed by routes.
  ['server/http/body.ts', 'runtime/json-carve.ts'],
  ['server/http/tfs-routes.ts', 'runtime/json-carve.ts'],
  ['server/http/v2-routes.ts', 'runtime/json-carve.ts'],
  ['server/http/v2-routes.ts', 'runtime/json-print.ts'],
  ['server/http/wire.ts', 'runtime/json-carve.ts'],
  // Routes and services know a model where they should know a servable.
  ['server/http/profile-routes.ts', 'runtime/observe.ts'],
  ['server/grpc/infer.ts', 'catalog/'],
  ['server/grpc/tfs-service.ts', 'catalog/'],
  // Regions belong to serving/.
  ['server/grpc/v2-service.ts', 'runtime/shared-memory.ts'],
  ['server/http/server.ts', 'runtime/shared-memory.ts'],
  ['server/http/shared-memory-routes.ts', 'runtime/shared-memory.ts'],
];

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
  from: {
    path: escape(room),
    ...(exceptions.some(([from]) => from.startsWith(room)) && {
      pathNot: exceptions.filter(([from]) => from.startsWith(room)).map(([from]) => escape(from)),
    }),
  },
  to: { path: '^src/', pathNot: [room, ...below].map(escape) },
}));

/** The same for the files that have exceptions, with these. */
const exceptionRules = [...new Set(exceptions.map(([from]) => from))].map((file) => {
  const room = Object.keys(rooms).find((name) => file.startsWith(name));
  const besides = exceptions.filter(([from]) => from === file).map(([, to]) => to);
  return {
    name: `${file} may import what ${room} may, and ${besides.join(', ')}`,
    severity: 'error',
    from: { path: `${escape(file)}$` },
    to: { path: '^src/', pathNot: [room, ...rooms[room], ...besides].map(escape) },
  };
});

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
    ...exceptionRules,
    ...packageRules,
  ],
  options: {
    doNotFollow: { path: 'node_modules' },
    tsPreCompilationDeps: true, // imports of types are imports
    tsConfig: { fileName: 'tsconfig.json' },
    enhancedResolveOptions: { exportsFields: ['exports'], conditionNames: ['import', 'node'] },
  },
};
