#!/usr/bin/env bash
# Runs every check and every test; the last line counts them all.
cd "$(dirname "$0")/.."
. scripts/prepare.sh

passed=0 failed=0 skipped=0
count() { # count LOG: adds the closing lines of test runners in LOG
  while read -r p f s; do
    passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
  done < <(sed -nE \
    -e 's/^test result: .* ([0-9]+) passed; ([0-9]+) failed; ([0-9]+) ignored;.*/\1 \2 \3/p' \
    -e 's/^([0-9]+) passed, ([0-9]+) failed, ([0-9]+) skipped$/\1 \2 \3/p' "$1")
}

status=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT

cargo fmt --all --check || { echo "cargo fmt would change files" >&2; status=1; }
cargo clippy --workspace --all-targets --quiet -- -D warnings || { echo "clippy has complaints" >&2; status=1; }
cargo build --workspace --bins --quiet || status=1
cargo test --workspace --no-fail-fast 2>&1 | tee "$log" || status=1
count "$log"
if [ -x tests/clients/run.sh ]; then
  tests/clients/run.sh 2>&1 | tee "$log" || status=1
  count "$log"
fi

[ "$status" = 0 ] || [ "$failed" != 0 ] || failed=1
echo "$passed passed, $failed failed, $skipped skipped"
exit "$status"
