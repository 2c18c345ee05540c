#!/usr/bin/env bash
# Makes the Python environment of the client tests, once for each requirements.txt and
# constraints.txt: build/clients-venv, some 1.2 GB, from PyPI.
#   environment.sh          makes it where it is missing or other packages are wanted; prints python
#   environment.sh --check  only looks; prints python
# AUGUR_CLIENTS_VENV puts it elsewhere.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../.." && pwd)
venv=${AUGUR_CLIENTS_VENV:-$root/build/clients-venv}
python=$venv/bin/python
stamp=$venv/packages.sha256

wanted=$(cat "$here/requirements.txt" "$here/constraints.txt" | sha256sum | cut -d' ' -f1)

is_current() {
  [ -x "$python" ] && [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]
}

if is_current; then
  echo "$python"
  exit 0
fi
if [ "${1:-}" = "--check" ]; then
  echo "The environment of the client tests is missing or out of date: $venv" >&2
  echo "Make it with: tests/server/clients/environment.sh" >&2
  exit 1
fi

# Two of these at once would install over each other.
mkdir -p "$(dirname "$venv")"
exec 9>"$venv.lock"
flock 9
if is_current; then
  echo "$python"
  exit 0
fi

echo "installing the clients into $venv" >&2
rm -rf "$venv"
log=$venv.log
install() {
  python3 -m venv "$venv" &&
    "$python" -m pip install --quiet --disable-pip-version-check --retries 3 --timeout 60 \
      --requirement "$here/requirements.txt" --constraint "$here/constraints.txt"
}
if ! install >"$log" 2>&1; then
  tail -n 15 "$log" >&2
  cat >&2 <<MESSAGE

The clients could not be installed, so that the client tests cannot run. Tried:
  python3 -m venv $venv   (Debian: python3-venv; $(python3 --version 2>&1))
  pip install -r tests/server/clients/requirements.txt -c tests/server/clients/constraints.txt
    from ${PIP_INDEX_URL:-$(python3 -m pip config get global.index-url 2>/dev/null ||
      echo https://pypi.org/simple)}
The whole output is in $log.
MESSAGE
  exit 1
fi
echo "$wanted" >"$stamp"
echo "$python"
