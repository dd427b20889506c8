#!/usr/bin/env bash
# Measures what federation costs this server and Synapse with PostgreSQL, side by side, and prints the table of
# docs/PERFORMANCE.md.
#
#   bench/federation.sh [--scale F] [--only STEP] [--without-synapse]
#
# The other servers are a recorded peer in the load generator: it signs rooms once, and tells of them over TLS as fast as it can. What it
# sends comes without TLS, as from a reverse proxy, to both. Steps are join_small, join_large, delivery, inbound_one,
# inbound_many. Otherwise as bench/run.sh.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
scale=1 synapse=yes steps=()
while [ $# -gt 0 ]; do
  case $1 in
    --scale) scale=$2 && shift 2 ;;
    --only) steps=(--only "$2") && shift 2 ;;
    --without-synapse) synapse=no && shift ;;
    *) echo "unknown argument: $1" >&2 && exit 2 ;;
  esac
done
# shellcheck source=servers.sh
. "$here/servers.sh"

mkdir "$work/peer"
"$POSTERN_BENCH_BIN" certify "$work/peer"
chmod -R a+rX "$work/peer"
peer_port=$(free_port)
postern_settings=(
  POSTERN__SERVER__NAME=postern.bench
  POSTERN__FEDERATION__ENABLED=true
  POSTERN__FEDERATION__ALLOW_ADDRESSES=127.0.0.0/8
  POSTERN__FEDERATION__CERTIFICATE_AUTHORITIES_FILE="$work/peer/authority.pem"
)
synapse_name=synapse.bench
synapse_resources='client, federation'
synapse_settings="
ip_range_blacklist: []
federation_ip_range_blacklist: []
federation_custom_ca_list: [$work/peer/authority.pem]
rc_federation: {window_size: 1000, sleep_limit: 1000000, sleep_delay: 1, reject_limit: 1000000, concurrent: 1000}
limit_remote_rooms: {enabled: false}
"

start_servers
"$POSTERN_BENCH_BIN" federation "${servers[@]}" --directory "$work/peer" --port "$peer_port" --scale "$scale" "${steps[@]}"
[ -z "${POSTERN_BENCH_LOGS:-}" ] || cp "$work"/*.log "$work/synapse/log" "$POSTERN_BENCH_LOGS"
