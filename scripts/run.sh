#!/usr/bin/env bash
# Builds the server and starts it with its embedded default configuration. Arguments go to the server.
cd "$(dirname "$0")/.."
. scripts/prepare.sh
cargo build --release --bin postern
exec "$CARGO_TARGET_DIR/release/postern" "$@"
