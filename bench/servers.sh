#!/usr/bin/env bash
# Sourced by the other scripts: starts the servers that are measured, and ends them.
#
# Settings: POSTERN_BIN and POSTERN_BENCH_BIN, the programs; `cache`, where Synapse is or will be installed. Before Postern starts,
# `postern_settings` may get more of its environment, before Synapse starts `synapse_name` another name for it, `synapse_resources`
# more that its listener serves, and `synapse_settings` lines of its configuration.
postern_settings=() synapse_name=localhost synapse_resources=client synapse_settings=''

cache=${XDG_CACHE_HOME:-$HOME/.cache}/postern/bench
mkdir -p "$cache"
if [ -z "${POSTERN_BIN:-}" ] || [ -z "${POSTERN_BENCH_BIN:-}" ]; then
  # shellcheck source=../scripts/prepare.sh
  cd "$here/.." && . scripts/prepare.sh
  cargo build --release -p postern -p postern-bench
  POSTERN_BIN=${POSTERN_BIN:-$CARGO_TARGET_DIR/release/postern}
  POSTERN_BENCH_BIN=${POSTERN_BENCH_BIN:-$CARGO_TARGET_DIR/release/postern-bench}
fi

work=$(mktemp -d "${TMPDIR:-/tmp}/postern-bench.XXXXXX")
chmod 755 "$work"
postern_pid='' synapse_pid='' postgres_pid=''
stop() { # stop PID: ask it to end and wait until it has
  [ -n "$1" ] || return 0
  kill -"${2:-TERM}" "$1" 2>/dev/null || return 0
  while kill -0 "$1" 2>/dev/null; do sleep 0.05; done
}
finish() {
  stop "$postern_pid"
  stop "$synapse_pid"
  stop "$postgres_pid" INT
  rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
bytes_of() { du -sb "$1" | cut -f1; }
ulimit -n "$(ulimit -Hn)"

# ---- Postern

postern_port=$(free_port)
start_postern() { # start_postern DIRECTORY
  env POSTERN__DATABASE__PATH="$1" POSTERN__LISTENERS__CLIENT="127.0.0.1:$postern_port" POSTERN__REGISTRATION__MODE=open \
    POSTERN__RATE_LIMITS__ENABLED=false POSTERN__PASSWORDS__ARGON2_MEMORY_KIBIBYTES=8 \
    POSTERN__PASSWORDS__ARGON2_ITERATIONS=1 POSTERN__LOG__LEVEL=warn "${postern_settings[@]}" \
    "$POSTERN_BIN" serve >"$work/postern.log" 2>&1 &
  postern_pid=$!
}
postern_ready() { "$POSTERN_BENCH_BIN" ready --address "127.0.0.1:$postern_port" --path /_postern/health/ready; }

# ---- Synapse and its database

start_synapse() {
  local bin user=() port database_port
  bin=$(find /usr/lib/postgresql -name initdb -printf '%h\n' 2>/dev/null | sort -V | tail -1)
  if [ -z "$bin" ] && [ "$(id -u)" = 0 ]; then
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq postgresql >/dev/null
    bin=$(find /usr/lib/postgresql -name initdb -printf '%h\n' | sort -V | tail -1)
  fi
  [ -n "$bin" ] || { echo "PostgreSQL is missing: apt-get install postgresql" >&2; return 1; }
  if [ ! -x "$cache/venv/bin/synapse_homeserver" ]; then
    python3 -m venv "$cache/venv"
    "$cache/venv/bin/pip" install -q 'matrix-synapse[postgres]' psycopg2-binary
  fi
  # PostgreSQL refuses to run as root.
  mkdir "$work/postgres" "$work/synapse"
  if [ "$(id -u)" = 0 ]; then
    chown postgres "$work/postgres"
    user=(setpriv --reuid=postgres --regid=postgres --clear-groups)
  fi
  port=$(free_port) database_port=$(free_port)
  (cd "$work/postgres" && "${user[@]}" "$bin/initdb" -D "$work/postgres/data" -U synapse -A trust \
    --encoding=UTF8 --locale=C >/dev/null)
  (cd "$work/postgres" && exec "${user[@]}" "$bin/postgres" -D "$work/postgres/data" -p "$database_port" \
    -k "$work/postgres" -c listen_addresses=127.0.0.1 -c shared_buffers=256MB >"$work/postgres.log" 2>&1) &
  postgres_pid=$!
  until "$bin/pg_isready" -q -h 127.0.0.1 -p "$database_port"; do sleep 0.1; done
  sql=("$bin/psql" -qAt -h 127.0.0.1 -p "$database_port" -U synapse)
  "${sql[@]}" -d postgres -c 'create database matrix'
  # Every limit, far away.
  local much='{per_second: 1000000, burst_count: 1000000}'
  cat >"$work/synapse/homeserver.yaml" <<YAML
server_name: $synapse_name
pid_file: $work/synapse/pid
listeners: [{port: $port, type: http, bind_addresses: [127.0.0.1], resources: [{names: [$synapse_resources]}]}]
database: {name: psycopg2, args: {user: synapse, dbname: matrix, host: 127.0.0.1, port: $database_port, cp_min: 5, cp_max: 10}}
log_config: $work/synapse/log.yaml
media_store_path: $work/synapse/media
signing_key_path: $work/synapse/key
macaroon_secret_key: bench
report_stats: false
trusted_key_servers: []
enable_registration: true
enable_registration_without_verification: true
bcrypt_rounds: 4
rc_message: $much
rc_registration: $much
rc_joins: {local: $much, remote: $much}
rc_joins_per_room: $much
rc_room_creation: $much
rc_login: {address: $much, account: $much, failed_attempts: $much}
rc_invites: {per_room: $much, per_user: $much, per_issuer: $much}
rc_presence: {per_user: $much}
$synapse_settings
YAML
  cat >"$work/synapse/log.yaml" <<YAML
version: 1
disable_existing_loggers: false
handlers: {file: {class: logging.FileHandler, filename: $work/synapse/log}}
root: {level: ${synapse_level:-ERROR}, handlers: [file]}
YAML
  (cd "$work/synapse" && "$cache/venv/bin/synapse_homeserver" -c homeserver.yaml --generate-keys)
  (cd "$work/synapse" && exec "$cache/venv/bin/synapse_homeserver" -c homeserver.yaml >"$work/synapse.log" 2>&1) &
  synapse_pid=$!
  "$POSTERN_BENCH_BIN" ready --address "127.0.0.1:$port" >/dev/null || { tail -20 "$work/synapse.log" >&2; return 1; }
  servers+=(--server "Synapse=127.0.0.1:$port,$synapse_pid,$postgres_pid")
}

# ---- What is measured, and on what

describe() {
  echo "$(uname -srm), $(nproc) cores, $(awk -F': ' '/model name/ {print $2; exit}' /proc/cpuinfo), $(awk '/MemTotal/ {printf "%.0f GiB", $2 / 1048576}' /proc/meminfo), $(date -u +%F)"
  echo "$("$POSTERN_BIN" --version), $(git -C "$here" rev-parse --short HEAD 2>/dev/null || true)"
}
describe_synapse() {
  "$cache/venv/bin/pip" list 2>/dev/null | awk '/^matrix-synapse / {print "Synapse " $2}'
  "${sql[@]}" -d matrix -c 'select version()'
}

# Starts this server and, if asked for, Synapse; says what they are and where they run.
start_servers() {
  describe
  start_postern "$work/postern"
  postern_ready >/dev/null
  servers=(--server "Postern=127.0.0.1:$postern_port,$postern_pid")
  if [ "$synapse" = yes ]; then
    start_synapse
    describe_synapse
  fi
  echo "scale $scale, load average before: $(cut -d' ' -f1-3 /proc/loadavg)"
  echo
}
