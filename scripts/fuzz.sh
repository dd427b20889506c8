#!/usr/bin/env bash
# Runs the fuzz targets, each for a bounded time: scripts/fuzz.sh [SECONDS] [TARGET...]; 30 seconds each by default.
#
# What is found on the way is kept in the user's cache and used the next time. No sanitizer: there is no unsafe code
# here, without one the pinned stable toolchain suffices, and RocksDB comes out of the compiler's cache.
cd "$(dirname "$0")/.."
. scripts/prepare.sh

seconds=${1:-30}
shift || true
targets=("$@")
[ "${#targets[@]}" -gt 0 ] || mapfile -t targets < <(sed -n 's/^name = "\(.*\)"/\1/p' fuzz/Cargo.toml | tail -n +2)

cargo fuzz --version >/dev/null 2>&1 || cargo install cargo-fuzz --version 0.13.2 --locked
build=(--fuzz-dir fuzz --target-dir "$CARGO_TARGET_DIR/fuzz" --sanitizer none)
cargo fuzz build "${build[@]}"

failed=0
for target in "${targets[@]}"; do
  corpus=${XDG_CACHE_HOME:-$HOME/.cache}/postern/fuzz/$target
  mkdir -p "$corpus"
  echo "== $target, $seconds s"
  # Memory in MiB, time for one input in seconds.
  cargo fuzz run "${build[@]}" "$target" "$corpus" "fuzz/seeds/$target" -- \
    -max_total_time="$seconds" -rss_limit_mb=512 -timeout=10 -max_len=16384 -print_final_stats=1 -verbosity=0 || failed=$((failed + 1))
done
echo "${#targets[@]} fuzz targets, $failed failed"
[ "$failed" = 0 ]
