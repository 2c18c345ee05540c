#!/usr/bin/env bash
# Runs one file of this folder in the environment of the client tests, which must be there.
#   run_test.sh FILE ARGS...
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
python=$("$here/environment.sh" --check)
exec "$python" -B "$here/$1" "${@:2}"
