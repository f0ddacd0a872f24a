#!/usr/bin/env bash
# Builds the pinned Kubernetes that the cluster tests run, from Go modules, into the user's cache directory.
# Usage: build.sh [PART …]     parts: kube kwok lws helm lua coredns crds packages; all but packages by default
# Prints nothing when everything is there. From nothing: 9 to 15 minutes on two to four cores, 5 GB of Go caches.
#
# A part lies in PART-HASH, where the hash covers its go.mod, go.sum and sources: a new pin never meets an old build,
# and `src/artifacts.rs` finds the part without asking this script.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${LLMD_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/llmd}/cluster
mkdir -p "$cache"
exec 9>"$cache/.lock"
if ! flock --nonblock 9; then
  echo "cluster: another build is running; waiting for it" >&2
  flock 9
fi

kubernetes=v1.34.4
stamp=
for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
  stamp+=" -X $package.gitVersion=$kubernetes -X $package.gitMajor=1 -X $package.gitMinor=34"
  stamp+=" -X $package.gitCommit=unknown -X $package.gitTreeState=clean -X $package.buildDate=1970-01-01T00:00:00Z"
done

# folder PART: the module's folder in this directory
folder() {
  case $1 in
    kube | coredns) echo "$here/$1" ;;
    *) echo "$here/tools/$1" ;;
  esac
}

# hash FILE …: of their contents, in the order of their names
hash() { cat "$@" | sha256sum | cut -c1-12; }

# build PART PACKAGE [FLAG …]
build() {
  local part=$1 package=$2 source target started=$SECONDS
  shift 2
  source=$(folder "$part")
  target=$cache/$part-$(cd "$source" && LC_ALL=C && hash go.mod go.sum $(ls -- *.go 2>/dev/null))
  [ -x "$target/$part" ] && return
  command -v go >/dev/null || {
    echo "cluster: Go is needed to build $part; install Go 1.24 or newer (https://go.dev/dl)" >&2
    exit 1
  }
  echo "cluster: building $part (minutes when Go's cache is cold)" >&2
  mkdir -p "$target"
  (cd "$source" && CGO_ENABLED=0 GOFLAGS=-mod=readonly GOTOOLCHAIN=auto \
    go build -trimpath "$@" -o "$target/$part.partial" "$package")
  mv "$target/$part.partial" "$target/$part"
  echo "cluster: $part built in $((SECONDS - started)) s: $target" >&2
}

# Definitions of foreign kinds, copied out of the module cache; the sum is what go.sum would hold.
crds() {
  local target module version sum folder
  target=$cache/crds-$(hash "$here/crds.txt")
  [ -d "$target" ] && return
  rm -rf "$target.partial"
  mkdir -p "$target.partial"
  while read -r name module version sum folder; do
    case $name in '' | '#'*) continue ;; esac
    local facts
    facts=$(cd "$target.partial" && go mod download -json "$module@$version")
    [[ $facts == *"\"Sum\": \"$sum\""* ]] || {
      echo "cluster: $module@$version does not have the sum of crds.txt" >&2
      exit 1
    }
    mkdir "$target.partial/$name"
    cp "$(sed -n 's/.*"Dir": "\(.*\)".*/\1/p' <<<"$facts")/$folder"/*.yaml "$target.partial/$name/"
    chmod -R u+w "$target.partial/$name"
    rm -f "$target.partial/$name/kustomization.yaml"
  done <"$here/crds.txt"
  mv "$target.partial" "$target"
  echo "cluster: definitions of foreign kinds: $target" >&2
}

# What real nodes need from Debian. None of these starts a service where there is no init system.
packages() {
  local missing=()
  [ -x /usr/bin/containerd ] || missing+=(containerd)
  [ -x /usr/sbin/runc ] || missing+=(runc)
  [ -x /usr/lib/cni/bridge ] || missing+=(containernetworking-plugins)
  [ -x /usr/sbin/iptables ] || missing+=(iptables)
  [ -x /usr/sbin/conntrack ] || missing+=(conntrack)
  [ -x /usr/sbin/ip ] || [ -x /sbin/ip ] || missing+=(iproute2)
  [ ${#missing[@]} -eq 0 ] && return
  if [ "$(id -u)" != 0 ]; then
    echo "cluster: real nodes need: apt-get install ${missing[*]}" >&2
    exit 1
  fi
  echo "cluster: installing Debian packages for real nodes: ${missing[*]}" >&2
  apt-get -qq update >&2
  DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends --yes "${missing[@]}" >&2
}

[ $# -gt 0 ] || set -- kube kwok lws helm lua coredns crds
for part in "$@"; do
  case $part in
    kube) build kube . -tags node -ldflags "-s -w$stamp" ;;
    coredns) build coredns . -ldflags "-s -w" ;;
    kwok) build kwok sigs.k8s.io/kwok/cmd/kwok -ldflags "-s -w" ;;
    lws) build lws sigs.k8s.io/lws/cmd -ldflags "-s -w" ;;
    helm) build helm helm.sh/helm/v3/cmd/helm -ldflags "-s -w" ;;
    # the Lua that Argo CD runs health scripts with
    lua) build lua github.com/yuin/gopher-lua/cmd/glua -ldflags "-s -w" ;;
    crds) crds ;;
    packages) packages ;;
    *)
      echo "cluster: no part named $part; parts: kube kwok lws helm lua coredns crds packages" >&2
      exit 2
      ;;
  esac
done
