#!/usr/bin/env bash
# Installs what Augur builds with, from Debian 12 packages. Quick when nothing is missing.
#   tools/install_deps.sh            what run.sh needs
#   tools/install_deps.sh --test     and what test.sh needs on top
set -euo pipefail

build=(
  g++ cmake ninja-build ccache pkg-config git
  libmimalloc-dev libyaml-cpp-dev libboost1.81-dev libboost-json1.81-dev
  libsimdjson-dev libcli11-dev prometheus-cpp-dev
  libspdlog-dev libfmt-dev libpcre2-dev libutf8proc-dev liburing-dev libxxhash-dev
  prometheus-cpp-dev
)
test=(
  libgtest-dev libgmock-dev libbenchmark-dev python3 python3-jinja2 python3-venv clang-14
  libclang-rt-14-dev chromium curl
)

wanted=("${build[@]}")
[ "${1:-}" = "--test" ] && wanted+=("${test[@]}")

missing=()
for package in "${wanted[@]}"; do
  status=$(dpkg-query -W -f='${Status}' "$package" 2>/dev/null || true)
  [ "$status" = "install ok installed" ] || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0

sudo=()
if [ "$(id -u)" -ne 0 ]; then
  if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
    sudo=(sudo)
  else
    echo "These Debian packages are missing and installing them needs root:" >&2
    echo "  sudo apt-get install ${missing[*]}" >&2
    exit 1
  fi
fi
echo "installing: ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
"${sudo[@]}" apt-get update -qq
"${sudo[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
