#!/usr/bin/env bash
# Installs what is missing, builds, and runs every test: release, with clients from PyPI and a browser,
# then each benchmark and each fuzz target for a moment, what runs beside the model's thread and the
# server under ThreadSanitizer, and every test again under AddressSanitizer and
# UndefinedBehaviorSanitizer.
#   ./test.sh          all of it
#   ./test.sh release  only the release build's tests
set -euo pipefail
cd "$(dirname "$0")"

./tools/install_deps.sh --test
tests/server/clients/environment.sh >/dev/null
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

echo "== ThreadSanitizer: the pool, the loader, the route cache and the server"
cmake --preset tsan >/dev/null
cmake --build build/tsan --target augur_cache_test augur_prefetch_test augur_server_http_test \
  augur_server_loop_test augur_server_metrics_test augur_server_service_test augur-server
# ExactnessTest computes for minutes there, on the threads that the others use.
for test in cache/augur_cache prefetch/augur_prefetch server/augur_server_{http,loop,metrics,service}; do
  "build/tsan/tests/${test}_test" --gtest_brief=1 --gtest_filter=-*ExactnessTest*
done
tests/server/clients/run_test.sh soak.py --seconds 15 --clients 24 \
  --server build/tsan/tools/augur-server

echo "== AddressSanitizer and UndefinedBehaviorSanitizer"
cmake --preset asan >/dev/null
cmake --build build/asan
# Of the clients only the soak: the others ask for nothing that it does not.
ctest --test-dir build/asan --output-on-failure -j "$jobs" --timeout 900 --no-tests=error -LE clients
ctest --test-dir build/asan --output-on-failure --timeout 900 --no-tests=error -R '^clients\.soak$'
