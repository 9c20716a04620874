#!/usr/bin/env bash
# npm pack installs in an empty project; the README's example type-checks and runs there.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm pack --silent --pack-destination "$folder" "$root" > /dev/null
npm init -y > /dev/null
npm pkg set type=module > /dev/null
# The local file needs no lockfile policy of ours; CUDA files are not wanted.
export ONNXRUNTIME_NODE_INSTALL=skip
npm install --silent ./tercel-*.tgz typescript@~6.0.3 @types/node@20
for addon in tercel tercel_load; do
  test -f node_modules/tercel/build/Release/$addon.node || { echo "$addon.node was not built" >&2; exit 1; }
done

# The example, out of the README: the first ts block.
awk '/^```ts$/ { on = 1; next } /^```$/ { if (on) exit } on' "$root/README.md" > example.ts
grep -q loadModel example.ts
mkdir -p models/digits/1 && cp "$root/models/digits/1/model.onnx" models/digits/1/
cat > tsconfig.json <<'JSON'
{
  "compilerOptions": {
    "target": "ES2022", "module": "NodeNext", "lib": ["ES2023", "ESNext.Disposable"],
    "strict": true, "noUncheckedIndexedAccess": true, "types": ["node"], "outDir": "out"
  },
  "include": ["example.ts"]
}
JSON
npx --no-install tsc
output=$(node out/example.js)
echo "$output"
grep -q "name: 'image'" <<< "$output"
npx --no-install tercel --version
node --input-type=module -e "import { InferenceSession } from 'tercel/onnxruntime'; const s = await InferenceSession.create('models/digits/1/model.onnx'); console.log(s.inputNames);"
# The protocols' descriptions are in it, and a client without the addon.
cat > served.mjs <<'JS'
import { createEngine, createGrpcServer, createServer, createTfsGrpcServer } from 'tercel';
import { Client } from 'tercel/client';
const engine = createEngine();
await engine.load('digits', 'models/digits/1/model.onnx');
const servers = [createGrpcServer(engine), createTfsGrpcServer(engine)];
for (const server of servers) await server.listen({ port: 0 });
const app = createServer(engine);
const client = new Client(await app.listen({ port: 0 }));
const image = { dtype: 'float32', shape: [1, 1, 8, 8], data: new Float32Array(64) };
console.log((await client.infer('digits', { image }, { outputs: ['digit'] })).digit.shape);
await client.close();
await Promise.all([...servers, app].map((server) => server.close()));
await engine.close();
JS
node served.mjs
rm -r node_modules/tercel/build
node --input-type=module -e "import { Client } from 'tercel/client'; await new Client('http://127.0.0.1:1').close();"
echo 'the package works in an empty project'
