#!/usr/bin/env bash
# Who includes whom: Node's headers are the addons' alone, and the core's rooms depend downwards.
set -euo pipefail
cd "$(dirname "$0")/.."
failed=0

if grep -rnE '#include *[<"](napi|node|js_native|node_api|uv|v8)[._a-z]*\.h' native --include='*.h' --include='*.cc' |
  grep -vE '^native/(addon/|load/addon\.cc:)'; then
  echo 'only native/addon and native/load/addon.cc may include headers of Node' >&2
  failed=1
fi

# What each room may include besides itself. Above them all, native/core/*.h may include any.
declare -A below=(
  [base]=''
  [ort]='base'
  [json]='base ort'
  [gpu]='base ort'
  [memory]='base gpu'
  [sched]='base ort json gpu memory'
)
for folder in native/core/*/; do
  room=$(basename "$folder")
  if [[ ! -v "below[$room]" ]]; then
    echo "$folder is not in native/check-core.sh: say which rooms it may include" >&2
    failed=1
    continue
  fi
  allowed=$(echo "$room ${below[$room]}" | xargs | tr ' ' '|')
  if grep -rnE '#include "' "$folder" | grep -vE "#include \"($allowed)/"; then
    echo "$folder may include ${allowed//|/, } only" >&2
    failed=1
  fi
done

# The load generator is not part of the server: of the core it knows base/ alone.
if grep -nE '#include "' native/load/* | grep -vE '#include "(base|load)/'; then
  echo 'native/load may include base/ only' >&2
  failed=1
fi
exit $failed
