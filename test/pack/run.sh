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
test -f node_modules/tercel/build/Release/tercel.node || { echo 'the addon was not built' >&2; exit 1; }

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
echo 'the package works in an empty project'
