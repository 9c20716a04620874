#!/usr/bin/env bash
# Builds the core and its tests under AddressSanitizer + UndefinedBehaviorSanitizer, then under
# ThreadSanitizer, and runs them. Needs npm ci (for the library and the models).
set -euo pipefail
cd "$(dirname "$0")/../.."
mapfile -t arguments < <(npx --no-install tsx test/native/arguments.ts)

run() {
  local name=$1 sanitizers=$2
  echo "== $name"
  cmake -S . -B "build/$name" -DTERCEL_ADDON=OFF -DTERCEL_TESTS=ON -DCMAKE_BUILD_TYPE=RelWithDebInfo \
    -DTERCEL_SANITIZE="$sanitizers" > /dev/null
  cmake --build "build/$name" --parallel 2 --target tercel_core_tests --target tercel_json_fuzz > /dev/null
  "build/$name/tercel_core_tests" "${arguments[@]}"
}

export ASAN_OPTIONS=detect_leaks=1:strict_string_checks=1
export UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
export LSAN_OPTIONS=suppressions=$PWD/native/test/lsan.supp
run asan address,undefined
# A short form; by hand build/asan/tercel_json_fuzz SECONDS SEED.
build/asan/tercel_json_fuzz 15 1
export TSAN_OPTIONS=suppressions=$PWD/native/test/tsan.supp:halt_on_error=1
run tsan thread
