#!/usr/bin/env bash
# Measures this server and Synapse with PostgreSQL side by side and prints the tables of docs/PERFORMANCE.md.
#
#   bench/run.sh [--scale F] [--events N] [--only STEP] [--without-synapse]
#
# --scale makes every step smaller or larger (1: as in the table), --events is how many messages the start-up is
# measured with (0: not at all). POSTERN_BIN and POSTERN_BENCH_BIN name programs that are built already.
#
# Both servers write through to the disk, hash passwords as cheaply as they can (their hashes are no part of the
# comparison) and have no rate limits. Synapse lives in a virtual environment in the user's cache.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
scale=1 events=500000 synapse=yes steps=()
while [ $# -gt 0 ]; do
  case $1 in
    --scale) scale=$2 && shift 2 ;;
    --events) events=$2 && shift 2 ;;
    --only) steps=(--only "$2") && shift 2 ;;
    --without-synapse) synapse=no && shift ;;
    *) echo "unknown argument: $1" >&2 && exit 2 ;;
  esac
done

# shellcheck source=servers.sh
. "$here/servers.sh"

# ---- The run

start_servers
"$POSTERN_BENCH_BIN" run "${servers[@]}" --scale "$scale" "${steps[@]}"
echo
stop "$postern_pid"
postern_pid=''
if [ "$synapse" = yes ]; then
  stop "$synapse_pid"
  synapse_pid=''
  "${sql[@]}" -d matrix -c 'vacuum full'
  "${sql[@]}" -d matrix -c "select 'Synapse: ' || count(*) || ' events, ' || pg_database_size('matrix') / count(*) || ' bytes of disk an event after VACUUM FULL' from events"
  stop "$postgres_pid" INT
  postgres_pid=''
fi

# ---- Start-up and disk with many events, this server only

if [ "$events" -gt 0 ]; then
  start_postern "$work/full"
  postern_ready >/dev/null
  "$POSTERN_BENCH_BIN" fill --server "Postern=127.0.0.1:$postern_port,$postern_pid" --events "$events"
  stop "$postern_pid"
  start_postern "$work/full"
  echo "Postern: ready after $(postern_ready) ms with $events messages"
  # What the log holds has become tables with the start; compactions that are due run now.
  sleep 5
  stop "$postern_pid"
  postern_pid=''
  echo "Postern: $(($(bytes_of "$work/full") / events)) bytes of disk a message"
fi
