#!/usr/bin/env bash
# Runs every check and every test; the last line counts them all. A failed check counts as one failed test.
cd "$(dirname "$0")/.."
. scripts/prepare.sh clients

passed=0 failed=0 skipped=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT

check() { # check NAME COMMAND...: one check, one test
  local name=$1
  shift
  if "$@"; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    echo "$name: failed" >&2
  fi
}

runner() { # runner NAME COMMAND...: a test runner, whose closing lines are counted
  local name=$1 before=$failed status=0 p f s
  shift
  "$@" 2>&1 | tee "$log" || status=$?
  while read -r p f s; do
    passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
  done < <(sed -nE \
    -e 's/^test result: .* ([0-9]+) passed; ([0-9]+) failed; ([0-9]+) ignored;.*/\1 \2 \3/p' \
    -e 's/^([0-9]+) passed, ([0-9]+) failed, ([0-9]+) skipped$/\1 \2 \3/p' "$log")
  if [ "$status" != 0 ] && [ "$failed" = "$before" ]; then
    failed=$((failed + 1))
    echo "$name: ended with status $status" >&2
  fi
}

check "cargo fmt --check" cargo fmt --all --check
check "cargo clippy" cargo clippy --workspace --all-targets --quiet -- -D warnings
# Known vulnerabilities are looked up by `cargo deny check`, which needs the network: not here.
if has cargo-deny; then
  check "cargo deny" cargo deny --log-level error check --hide-inclusion-graph bans licenses sources
fi
# Tests from outside run the program.
check "cargo build" cargo build --workspace --bins --quiet
runner "cargo test" cargo test --workspace --no-fail-fast
check "cargo clippy --test lab" cargo clippy -p postern --test lab --quiet -- -D warnings
# The long run is `make lab`.
runner "tests/lab" env POSTERN_BIN="$CARGO_TARGET_DIR/debug/postern" tests/lab/run.sh two
if [ -x tests/clients/run.sh ]; then
  runner "tests/clients" env POSTERN_BIN="$CARGO_TARGET_DIR/debug/postern" tests/clients/run.sh
fi

echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
