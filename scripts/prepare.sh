#!/usr/bin/env bash
# Sourced by the other scripts: makes sure that what a build needs is there, and sets the environment all builds share.
#
# Missing Debian packages are installed when this is root or may use sudo without a password; otherwise the command
# to run is printed. The build directory lies in the user's cache, outside the clone.
set -euo pipefail

need() { # need COMMAND-OR-FILE PACKAGE
  command -v "$1" >/dev/null 2>&1 || [ -e "$1" ] || missing+=("$2")
}

missing=()
need clang clang
need cmake cmake
need c++ g++
need make make
need pkg-config pkg-config
ls /usr/lib/llvm-*/lib/libclang*.so* >/dev/null 2>&1 || missing+=(libclang-dev)
# Not needed, but they save most of the time: ccache keeps RocksDB's objects, mold links in a second.
command -v ccache >/dev/null 2>&1 || missing+=(ccache)
command -v mold >/dev/null 2>&1 || missing+=(mold)

if [ "${#missing[@]}" -gt 0 ]; then
  sudo=''
  [ "$(id -u)" = 0 ] || sudo='sudo -n'
  if command -v apt-get >/dev/null 2>&1 && { [ -z "$sudo" ] || $sudo true 2>/dev/null; }; then
    echo "installing from Debian: ${missing[*]}" >&2
    $sudo apt-get update -qq
    DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq "${missing[@]}" >/dev/null
  else
    echo "missing on this machine: ${missing[*]}" >&2
    echo "install them first, on Debian: apt-get install ${missing[*]}" >&2
    command -v clang >/dev/null 2>&1 && command -v c++ >/dev/null 2>&1 || exit 1
  fi
fi
command -v cargo >/dev/null 2>&1 || { echo "Rust is missing: install it with rustup (https://rustup.rs)" >&2; exit 1; }

export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/postern/target}
if command -v ccache >/dev/null 2>&1; then
  export CC=${CC:-ccache cc} CXX=${CXX:-ccache c++}
fi
if command -v mold >/dev/null 2>&1 && command -v clang >/dev/null 2>&1; then
  export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_LINKER=clang
  export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS="-C link-arg=-fuse-ld=mold"
  export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=clang
  export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS="-C link-arg=-fuse-ld=mold"
fi
