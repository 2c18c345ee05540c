#!/usr/bin/env bash
# Measures expert memory: gate, route cache, pool, predictors, loader, and decoding with pools of
# several sizes. Prints the tables and draws docs/images/*.svg; about five minutes on two cores.
#   tools/bench_expert_memory.sh                    the demo model
#   tools/bench_expert_memory.sh --model DIR ...    what else augur_bench_expert_memory takes
#   tools/bench_expert_memory.sh --brief            a moment of what the plots need, thrown away: CI
set -euo pipefail
cd "$(dirname "$0")/.."

is_brief=
[ "${1:-}" = "--brief" ] && is_brief=1
micro=(gating expert_pool)
[ -z "$is_brief" ] && micro+=(route_cache predictor loader)

[ -f build/release/build.ninja ] || cmake --preset release >/dev/null
targets=(augur_bench_expert_memory)
for name in "${micro[@]}"; do targets+=("augur_${name}_bench"); done
cmake --build build/release --target "${targets[@]}" >/dev/null

results=build/release/bench_results
images=docs/images
min_time=0.1
if [ -n "$is_brief" ]; then
  results=$(mktemp -d)
  trap 'rm -rf "$results"' EXIT
  images=$results/images
  min_time=0.001
fi
mkdir -p "$results"
rm -f "$results"/*.json "$results"/end_to_end.csv

for name in "${micro[@]}"; do
  echo "-- $name" >&2
  "build/release/bench/augur_${name}_bench" --benchmark_min_time=$min_time \
    --benchmark_out="$results/$name.json" --benchmark_out_format=json >/dev/null
done
echo "-- decoding" >&2
build/release/bench/augur_bench_expert_memory --csv "$results/end_to_end.csv" "$@"
echo
python3 tools/plot_benches.py "$results" "$images"
