#!/usr/bin/env bash
# Installs pinned Python packages once into the user's cache and prints the directory of their virtual environment:
# venv.sh NAME REQUIREMENTS. Environments of other pins, or another Python, stay apart.
set -euo pipefail
command -v python3 >/dev/null || { echo "there is no python3" >&2; exit 1; }
key=$({ python3 --version; cat "$2"; } | sha256sum | cut -c1-16)
venv=${XDG_CACHE_HOME:-$HOME/.cache}/postern/$1-$key
mkdir -p "${venv%/*}"
# Two test programs may come here at once.
exec 9>"$venv.lock"
flock 9
# What was not installed completely goes.
if [ ! -e "$venv/complete" ]; then
  rm -rf "$venv"
  python3 -m venv "$venv" >&2
  "$venv/bin/pip" install -q --disable-pip-version-check -r "$2" >&2
  touch "$venv/complete"
fi
echo "$venv"
