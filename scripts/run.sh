#!/usr/bin/env bash
# Builds the server and starts it; without arguments, with its embedded default configuration. Arguments go to it.
cd "$(dirname "$0")/.."
. scripts/prepare.sh
cargo build --release --bin postern
exec "$CARGO_TARGET_DIR/release/postern" "$@"
