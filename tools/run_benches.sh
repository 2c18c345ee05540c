#!/usr/bin/env bash
# Runs every microbenchmark of the release build.
#   tools/run_benches.sh            in full
#   tools/run_benches.sh --brief    one short repetition each
set -euo pipefail
cd "$(dirname "$0")/.."

arguments=()
[ "${1:-}" = "--brief" ] && arguments+=(--benchmark_min_time=0.001)
shopt -s nullglob
for bench in build/release/bench/augur_*_bench; do
  echo "-- $(basename "$bench")"
  "$bench" "${arguments[@]}"
done
