#!/usr/bin/env bash
# Sourced by the other scripts: makes sure that what a build needs is there, and sets the environment all builds share.
# With `clients` as argument also what the tests with real clients need.
#
# Missing Debian packages are installed when this is root or may use sudo without a password; otherwise the command
# to run is printed. The build directory lies in the user's cache, outside the clone, and every script builds with the
# same flags, so that nothing, least of all RocksDB, is built twice.
set -euo pipefail

has() { command -v "$1" >/dev/null 2>&1; }

required=() useful=()
has clang || required+=(clang)
has cmake || required+=(cmake)
has c++ || required+=(g++)
has make || required+=(make)
has pkg-config || required+=(pkg-config)
[ -n "${LIBCLANG_PATH:-}" ] ||
  compgen -G '/usr/lib*/llvm-*/lib/libclang*.so*' >/dev/null ||
  compgen -G '/usr/lib*/libclang*.so*' >/dev/null ||
  compgen -G '/usr/lib/*/libclang*.so*' >/dev/null ||
  required+=(libclang-dev)
# Not needed, but they save most of the time: ccache keeps RocksDB's objects, mold links in a second.
has ccache || useful+=(ccache)
has mold || useful+=(mold)
if [ "${1:-}" = clients ]; then
  has python3 && python3 -c 'import ensurepip' 2>/dev/null || useful+=(python3-venv)
  has node || useful+=(nodejs)
  has npm || useful+=(npm)
  # Where there is systemd, the package would have it scan and fetch signatures from now on, which nobody asked for.
  [ -x /usr/sbin/clamd ] || [ -d /run/systemd/system ] || useful+=(clamav-daemon)
fi

missing=("${required[@]}" "${useful[@]}")
if [ "${#missing[@]}" -gt 0 ]; then
  root=()
  [ "$(id -u)" = 0 ] || root=(sudo -n)
  if has apt-get && { [ "${#root[@]}" = 0 ] || "${root[@]}" true 2>/dev/null; }; then
    echo "installing from Debian: ${missing[*]}" >&2
    "${root[@]}" apt-get update -qq || echo "apt-get update failed; trying with what is known" >&2
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" \
      >/dev/null || echo "could not install: ${missing[*]}" >&2
  else
    echo "missing on this machine: ${missing[*]}" >&2
    echo "on Debian, as root: apt-get install ${missing[*]}" >&2
    if [ "${#required[@]}" -gt 0 ]; then
      echo "cannot build without: ${required[*]}" >&2
      exit 1
    fi
  fi
fi
has cargo || { echo "missing on this machine: Rust; install it with rustup, https://rustup.rs" >&2; exit 1; }

export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/postern/target}
if has ccache; then
  export CC=${CC:-ccache cc} CXX=${CXX:-ccache c++}
fi
if has mold && has clang; then
  machine=$(uname -m | tr '[:lower:]' '[:upper:]')
  export "CARGO_TARGET_${machine}_UNKNOWN_LINUX_GNU_LINKER=clang"
  export "CARGO_TARGET_${machine}_UNKNOWN_LINUX_GNU_RUSTFLAGS=-C link-arg=-fuse-ld=mold"
fi
