#!/usr/bin/env bash
# Formats the C++ sources: native/format.sh -i, or --dry-run -Werror to check.
set -euo pipefail
cd "$(dirname "$0")/.."
find native -name '*.cc' -o -name '*.h' -o -name '*.c' | sort | xargs npx --no-install clang-format "$@"
