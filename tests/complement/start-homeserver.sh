#!/usr/bin/env bash
# Starts a homeserver for Complement: NAME SERVER_NAME CLIENT_PORT FED_PORT DATA_DIR CA_CERT CA_KEY.
# Runs the program named by POSTERN_BIN, else the release build, which lies where scripts/prepare.sh has it built.
set -euo pipefail
server_name=$2 client_port=$3 federation_port=$4 data_dir=$5 ca_cert=$6
target=${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/postern/target}
bin=${POSTERN_BIN:-$target/release/postern}
if [ ! -x "$bin" ]; then
  echo "there is no program at $bin: build it with scripts/cargo.sh build --release, or name one in POSTERN_BIN" >&2
  exit 1
fi

cat >"$data_dir/postern.toml" <<CONF
[server]
name = "$server_name"

[listeners]
client = ["$HS_BIND_ADDRESS:$client_port"]
federation_tls = ["$HS_BIND_ADDRESS:$federation_port"]
tls_certificate_file = "$HS_TLS_CERT"
tls_key_file = "$HS_TLS_KEY"

[federation]
certificate_authorities_file = "$ca_cert"
allow_addresses = ["127.0.0.0/8"]

[users]
device_names_over_federation = true

[database]
path = "$data_dir/graph"
cache_mebibytes = 8

[registration]
mode = "open"
guests = true
shared_secret = "$HS_REGISTRATION_SHARED_SECRET"

[passwords]
min_length = 6
argon2_memory_kibibytes = 8
argon2_iterations = 1

[rate_limits]
enabled = false

[media]
unauthenticated_downloads = true

[rooms]
default_version = "11"

[log]
level = "info,ruma_state_res=warn"
CONF

exec "$bin" --config "$data_dir/postern.toml" serve
