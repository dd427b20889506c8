#!/usr/bin/env bash
# Tests with servers on hosts of their own over a network that fails: run.sh [two|five]..., without arguments both. The last
# line counts the tests.
#
# Hosts are network namespaces inside one that is made here, so that nothing of the machine is changed and nothing is left. That takes
# root, or a system that lets ordinary users have namespaces of their own, and iproute2; otherwise all tests are skipped,
# with the reason. POSTERN_SEED repeats the faults of another run, POSTERN_LAB_SECONDS says how long there are faults.
# POSTERN_BIN names a program other than the debug build.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
tests=("$@")
[ $# -gt 0 ] || tests=(two five)

skip() {
  for name in "${tests[@]}"; do
    echo "SKIPPED: lab: $name servers agree after faults: $1" >&2
  done
  echo "0 passed, 0 failed, ${#tests[@]} skipped"
  exit 0
}
for program in unshare ip tc; do
  command -v "$program" >/dev/null || skip "there is no $program: apt-get install iproute2 util-linux"
done
inside=(unshare --net --mount --fork --kill-child)
[ "$(id -u)" = 0 ] || inside+=(--user --map-root-user)
# What the tests need is tried, once: namespaces, links between them, and filters.
# shellcheck disable=SC2016
begin='mount -t tmpfs tmpfs /run && ip link set lo up'
try='ip netns add try && ip netns exec try true && ip link add try0 type veth peer name try1 netns try && tc qdisc add dev try0 clsact &&
  tc filter add dev try0 egress pref 1 handle 1 bpf da bytecode "1,6 0 0 0" && ip link add try2 type bridge'
why=$("${inside[@]}" sh -c "$begin && $try" 2>&1) || skip "namespaces cannot be made here: ${why//$'\n'/ }"

# shellcheck source=../../scripts/prepare.sh
cd "$here/../.." && . scripts/prepare.sh
cargo build --quiet --bin postern
program=$(cargo test --quiet -p postern --test lab --no-run --message-format=json |
  sed -nE 's/.*"name":"lab".*"executable":"([^"]+)".*/\1/p' | tail -1)
[ -n "$program" ] || { echo "the tests were not built" >&2 && exit 1; }

log=$(mktemp)
trap 'rm -f "$log"' EXIT
passed=0 failed=0
for name in "${tests[@]}"; do
  echo "lab, $name servers:"
  status=0
  POSTERN_LAB_INSIDE=1 "${inside[@]}" sh -c "$begin"' && exec "$@"' lab \
    "$program" --exact "${name}_servers_agree_after_faults" --nocapture 2>&1 | tee "$log" | sed -u 's/^/  /' || status=$?
  # A name that is no test's would pass by running none.
  if [ "$status" = 0 ] && grep -q '^test result: ok. 1 passed' "$log"; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
  fi
done
echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" = 0 ]
