#!/usr/bin/env bash
# Measures what the border costs: how long decisions take, and how much more CPU it is to send 1,000 messages a second to 20
# servers with labels, policies and guards than without a border. Prints the table of docs/PERFORMANCE.md.
#
#   bench/border.sh [--scale F]
#
# Both servers are this one, the second with a border: a room with a label, 20 peers cleared for it, the detectors of secrets,
# and ten policies of an operator. The peers are a recorded peer in the load generator, over TLS. Otherwise as bench/run.sh.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
scale=1 synapse=no
while [ $# -gt 0 ]; do
  case $1 in
    --scale) scale=$2 && shift 2 ;;
    *) echo "unknown argument: $1" >&2 && exit 2 ;;
  esac
done
# shellcheck source=servers.sh
. "$here/servers.sh"

mkdir -p "$work/peer" "$work/border/policies"
"$POSTERN_BENCH_BIN" certify "$work/peer"
peer_port=$(free_port)
postern_settings=(
  POSTERN__SERVER__NAME=postern.bench
  POSTERN__FEDERATION__ENABLED=true
  POSTERN__FEDERATION__ALLOW_ADDRESSES=127.0.0.0/8
  POSTERN__FEDERATION__CERTIFICATE_AUTHORITIES_FILE="$work/peer/authority.pem"
)
{
  echo 'default_clearance = "Company INTERNAL"'
  echo '[guards.secrets]'
  echo 'enabled = true'
  for peer in $(seq 20); do
    printf '[[peer]]\nname = "127.0.1.%s:%s"\nclearance = "Company INTERNAL"\n' "$peer" "$peer_port"
  done
} >"$work/border/border.toml"
for policy in $(seq 10); do
  printf '@id("site-%s") forbid (principal, action == Action::"release", resource is Event)\n' "$policy"
  printf 'when { resource.type == "site.%s" || context.guard.contains("secret:site-%s") };\n' "$policy" "$policy"
done >"$work/border/policies/site.cedar"

describe
start_postern "$work/without"
postern_ready >/dev/null
without_pid=$postern_pid without="Without=127.0.0.1:$postern_port,$postern_pid"
trap 'stop "$without_pid"; finish' EXIT
postern_port=$(free_port)
postern_settings+=(POSTERN__BORDER__DIRECTORY="$work/border")
start_postern "$work/with"
postern_ready >/dev/null
echo "scale $scale, load average before: $(cut -d' ' -f1-3 /proc/loadavg)"
echo
"$POSTERN_BENCH_BIN" border --server "$without" --server "With=127.0.0.1:$postern_port,$postern_pid" \
  --directory "$work/peer" --port "$peer_port" --scale "$scale"
[ -z "${POSTERN_BENCH_LOGS:-}" ] || cp "$work"/*.log "$POSTERN_BENCH_LOGS"
echo
# What one decision takes, with the base policies and with 100 that all fit: of the policies alone, and of the border.
cd "$here/.." && . scripts/prepare.sh
cargo test --quiet --release -p postern-policy -p postern-border -- --ignored --nocapture | grep -E '[µnm]s( |,|$)' || true
