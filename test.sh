#!/usr/bin/env bash
# Installs what is missing, builds, and runs every test: release, then AddressSanitizer and
# UndefinedBehaviorSanitizer, then each fuzz target and each benchmark for a moment.
#   ./test.sh          all of it
#   ./test.sh release  only the release build's tests
set -euo pipefail
cd "$(dirname "$0")"

./tools/install_deps.sh --test
jobs=$(nproc)

echo "== release"
cmake --preset release -DAUGUR_BUILD_TESTS=ON -DAUGUR_BUILD_BENCH=ON >/dev/null
cmake --build build/release
ctest --test-dir build/release --output-on-failure -j "$jobs" --timeout 600 --no-tests=error
[ "${1:-all}" = "release" ] && exit 0

echo "== benchmarks, a moment each, so that none rots"
tools/run_benches.sh --brief

echo "== fuzz targets, a moment each"
tools/run_fuzzers.sh 5

echo "== AddressSanitizer and UndefinedBehaviorSanitizer"
cmake --preset asan >/dev/null
cmake --build build/asan
ctest --test-dir build/asan --output-on-failure -j "$jobs" --timeout 900 --no-tests=error
