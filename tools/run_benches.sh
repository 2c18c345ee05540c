#!/usr/bin/env bash
# Runs every microbenchmark of the release build.
#   tools/run_benches.sh            in full
#   tools/run_benches.sh --brief    one short repetition each
set -euo pipefail
cd "$(dirname "$0")/.."

brief=${1:-}
arguments=()
[ "$brief" = "--brief" ] && arguments+=(--benchmark_min_time=0.001)
shopt -s nullglob
for bench in build/release/bench/augur_*_bench; do
  echo "-- $(basename "$bench")"
  "$bench" "${arguments[@]}"
done
echo "-- augur_affinity_sim"
if [ "$brief" = "--brief" ]; then
  build/release/bench/augur_affinity_sim --requests 40 --strength 1 --orders 1
else
  build/release/bench/augur_affinity_sim
fi
echo "-- augur_bench_expert_memory"
if [ "$brief" = "--brief" ]; then
  tools/bench_expert_memory.sh --brief
else
  build/release/bench/augur_bench_expert_memory
fi
