#!/usr/bin/env bash
# Real clients, unmodified, against the server: npm run interop. Needs npm run build, Python 3.10 or newer
# with venv, and PyPI.
set -euo pipefail
cd "$(dirname "$0")/../.."

# An environment each: what their clients want of protobuf differs.
install() {
  local environment=build/interop/$1 requirements=test/interop/$1.txt
  cmp -s "$requirements" "$environment/installed.txt" && return
  python3 -m venv --clear "$environment"
  "$environment/bin/pip" install --quiet --disable-pip-version-check -r "$requirements"
  # Their stubs alone: the package wants all of TensorFlow with its GPU libraries.
  if [ "$1" = tfs ]; then
    "$environment/bin/pip" install --quiet --disable-pip-version-check --no-deps tensorflow-serving-api==2.21.0
  fi
  cp "$requirements" "$environment/installed.txt"
}

export TERCEL_REPOSITORY
TERCEL_REPOSITORY=$(mktemp -d)
trap 'rm -rf "$TERCEL_REPOSITORY"' EXIT
npx --no-install tsx test/interop/repository.ts "$TERCEL_REPOSITORY"
# A process each: their clients bring messages of the same names.
run() {
  echo "== $2"
  "build/interop/$1/bin/python" -m pytest -q -p no:cacheprovider "test/interop/$2"
}
install triton
for test in test_readme.py test_triton.py test_grpc.py test_kserve.py test_client.py; do run triton "$test"; done
install tfs
run tfs test_tfs.py
