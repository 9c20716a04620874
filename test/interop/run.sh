#!/usr/bin/env bash
# Real clients, unmodified, against the server: npm run interop. Needs npm run build, Python 3.10 or newer
# with venv, and PyPI.
set -euo pipefail
cd "$(dirname "$0")/../.."
environment=build/interop
if ! cmp -s test/interop/requirements.txt "$environment/installed.txt"; then
  python3 -m venv --clear "$environment"
  "$environment/bin/pip" install --quiet --disable-pip-version-check -r test/interop/requirements.txt
  cp test/interop/requirements.txt "$environment/installed.txt"
fi
export TERCEL_REPOSITORY
TERCEL_REPOSITORY=$(mktemp -d)
trap 'rm -rf "$TERCEL_REPOSITORY"' EXIT
npx --no-install tsx test/interop/repository.ts "$TERCEL_REPOSITORY"
# A process each: their clients bring messages of the same names.
for test in test/interop/test_*.py; do
  echo "== $test"
  "$environment/bin/python" -m pytest -q -p no:cacheprovider -o asyncio_mode=auto "$test"
done
