#!/usr/bin/env bash
# The core never includes Node's headers, and nothing but native/addon does.
set -euo pipefail
cd "$(dirname "$0")/.."
if grep -rnE '#include *[<"](napi|node|js_native|node_api|uv|v8)[._a-z]*\.h' native/core native/load native/measure native/bench native/fuzz native/test; then
  echo "native/core must not know Node" >&2
  exit 1
fi
