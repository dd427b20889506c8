#!/usr/bin/env bash
# Cargo with the environment of the other scripts, so that its builds are shared: scripts/cargo.sh check -p postern-rooms
cd "$(dirname "$0")/.."
. scripts/prepare.sh
exec cargo "$@"
