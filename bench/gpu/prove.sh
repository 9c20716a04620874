#!/usr/bin/env bash
# Proves on a machine with an NVIDIA GPU what cannot be seen without one: expected outputs, the runs' costs
# beside PyTorch's and the machine's roof, hidden copies, bandwidth, memory that comes back; and where Node
# is, that the engine gives every request its own result there, and how many it answers.
#
#   bench/gpu/prove.sh [ONNX RUNTIME] [RESULTS]
#
# Needs CMake and a C++20 compiler, and what bench/gpu/bundle.ts wrote to build/gpu/bundle; no network. The
# engine is left out where there is no Node, or no build. ONNX RUNTIME is PyPI's wheel of onnxruntime-gpu
# (1.30 is of CUDA 13), or a folder with libonnxruntime and the providers' files; default: the wheel in
# build/gpu, put together from its parts (`split -b 60M -d WHEEL WHEEL.part`) where it came so. CUDA's and
# TensorRT's libraries may be the system's, on LD_LIBRARY_PATH, or those of pip's packages. RESULTS is a
# folder; default build/gpu/results.
#
# TERCEL_PROVE_STAND_IN=LIBCUDART runs all of it on the CPU, with the fake of the CUDA runtime, for a look at
# the script itself. SECONDS_EACH and CYCLES make it shorter or longer (3 and 200).
set -euo pipefail
cd "$(dirname "$0")/../.."
work=build/gpu
results=${2:-$work/results}
mkdir -p "$work" "$results"
rm -f "$results"/*.jsonl
say() { printf '\n=== %s\n' "$*" >&2; }

[ -d "$work/bundle" ] || { echo "no $work/bundle: run \"npx tsx bench/gpu/bundle.ts\" where Node is" >&2; exit 2; }

runtime=${1:-}
if [ -z "$runtime" ]; then
  for first in "$work"/*.whl.part00; do
    [ -e "$first" ] && cat "${first%00}"* > "${first%.part00}"
  done
  runtime=$(ls "$work"/onnxruntime_gpu-*.whl 2> /dev/null | tail -1 || true)
fi
case $runtime in
  *.whl)
    unpacked=$work/ort/$(basename "$runtime" .whl)
    if [ ! -e "$unpacked/onnxruntime" ]; then
      say "unpacking $runtime"
      python3 -m zipfile -e "$runtime" "$unpacked"
    fi
    runtime=$unpacked/onnxruntime/capi
    ;;
esac
library=$(ls "${runtime:-nowhere}"/libonnxruntime.so* 2> /dev/null | head -1 || true)
[ -n "$library" ] || { echo "no libonnxruntime in \"$runtime\": name a wheel of onnxruntime-gpu or a folder" >&2; exit 2; }

# Of pip's packages: CUDA (nvidia/*/lib), TensorRT (tensorrt_libs).
packages=$(python3 - << 'PYTHON' 2> /dev/null || true
import glob, site, sys
roots = list(dict.fromkeys(site.getsitepackages() + [p for p in sys.path if p.endswith("-packages")]))
found = [d for root in roots for p in ("nvidia/*/lib", "tensorrt_libs") for d in glob.glob(f"{root}/{p}")]
print(":".join(found))
PYTHON
)
if [ -n "$packages" ]; then
  export LD_LIBRARY_PATH="$packages${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
fi

say 'building the core, without Node'
cmake -S . -B "$work/core" -DTERCEL_ADDON=OFF -DTERCEL_TESTS=ON -DCMAKE_BUILD_TYPE=Release > /dev/null
cmake --build "$work/core" --parallel "$(nproc)" --target tercel_gpu > /dev/null

failed=0
options=(--seconds "${SECONDS_EACH:-3}" --cycles "${CYCLES:-200}")
[ -z "${TERCEL_PROVE_STAND_IN:-}" ] || options+=(--stand-in "$TERCEL_PROVE_STAND_IN")
prove() {
  local name=$1
  shift
  say "$name"
  "$work/core/tercel_gpu" "$library" "$work/bundle" "$@" "${options[@]}" > "$results/$name.jsonl" || failed=1
}
# Each in a process of its own: what ends one of them leaves the others.
prove cuda-outputs --provider cuda outputs
prove cuda-runs --provider cuda roof copies runs
prove cuda-cycles --provider cuda cycles
if python3 -c 'import ctypes; ctypes.CDLL("libnvinfer.so.10")' 2> /dev/null; then
  prove tensorrt --provider tensorrt outputs runs
else
  say 'TensorRT: its libraries are not there; not proved'
fi
if [ -d node_modules/tsx ] && [ -d dist ] && command -v node > /dev/null; then
  say 'engine, from Node'
  engine=(--seconds "${SECONDS_EACH:-3}")
  [ -z "${TERCEL_PROVE_STAND_IN:-}" ] || engine+=(--stand-in)
  TERCEL_ORT_LIBRARY=$library npx --no-install tsx bench/gpu/engine.ts "${engine[@]}" \
    > "$results/engine.jsonl" || failed=1
else
  say 'engine: no Node, or no build; not proved'
fi
if [ -n "${TERCEL_PROVE_STAND_IN:-}" ]; then
  say 'PyTorch: not beside a stand-in'
elif python3 -c 'import torch, sys; sys.exit(not torch.cuda.is_available())' 2> /dev/null; then
  say 'PyTorch'
  python3 bench/gpu/torch_peer.py --seconds "${SECONDS_EACH:-3}" > "$results/pytorch.jsonl" || failed=1
else
  say 'PyTorch: not there, or it sees no GPU; not compared'
fi
say "results are in $results"
grep -h '"holds":false' "$results"/*.jsonl >&2 && failed=1
exit $failed
