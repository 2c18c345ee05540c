#!/usr/bin/env bash
# Builds the fuzz targets and runs each for some seconds; stops at the first finding, whose input
# is left in build/fuzz/findings.
#   tools/run_fuzzers.sh SECONDS [TARGET...]     e.g. tools/run_fuzzers.sh 60 safetensors config
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:?usage: tools/run_fuzzers.sh SECONDS [TARGET...]}
shift
targets=("$@")
if [ ${#targets[@]} -eq 0 ]; then
  for source in fuzz/*_fuzz.cc; do targets+=("$(basename "$source" _fuzz.cc)"); done
fi

programs=("${targets[@]/#/augur_}")
programs=("${programs[@]/%/_fuzz}")
cmake --preset fuzz >/dev/null
cmake --build build/fuzz --target "${programs[@]}"
mkdir -p build/fuzz/findings
for target in "${targets[@]}"; do
  # What a run learns stays in the build folder; the seeds in the repository are only read.
  corpora=("build/fuzz/learned/$target")
  mkdir -p "${corpora[0]}"
  [ -d "fuzz/corpus/$target" ] && corpora+=("fuzz/corpus/$target")
  log=build/fuzz/$target.log
  if ! "build/fuzz/fuzz/augur_${target}_fuzz" -max_total_time="$seconds" -timeout=10 \
    -rss_limit_mb=4096 -max_len=65536 -print_final_stats=1 -verbosity=0 -print_funcs=0 \
    -artifact_prefix="build/fuzz/findings/$target-" "${corpora[@]}" >"$log" 2>&1; then
    tail -n 60 "$log"
    echo "$target: a finding; its input is in build/fuzz/findings, the whole log is $log" >&2
    exit 1
  fi
  echo "$target: no finding in $(sed -n 's/^stat::number_of_executed_units: *//p' "$log") runs"
done
