#!/usr/bin/env bash
# Two enclaves that federate, as processes of this machine: what docker-compose.yml starts as containers, from the same
# configuration files. An account is made on each, one invites the other into a room, and a message goes each way.
#
#   scripts/demo.sh           then they stay, to be logged in at; Ctrl-C ends them
#   scripts/demo.sh --check   then they end: with 0 if everything worked
#   scripts/demo.sh --plan    says what would be started, one `key=value` a line, for the test that holds this file and
#                             docker-compose.yml in step
#
# Environment: DEMO_BORDER is a directory with the borders' directories of both, `alpha` and `bravo`. DEMO_TOKEN is the registration token. DEMO_ALPHA and DEMO_BRAVO are the loopback addresses that are the
# enclaves' names here, DEMO_CLIENTS the one where clients reach both. POSTERN_BIN names a program that is built already.
# Data lies in a temporary directory and goes when the enclaves end.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

enclaves=(alpha bravo)
declare -A address=([alpha]=${DEMO_ALPHA:-127.0.0.2} [bravo]=${DEMO_BRAVO:-127.0.0.3})
declare -A client_port=([alpha]=8101 [bravo]=8102)
declare -A person=([alpha]=alice [bravo]=bob)
federation_port=8448
clients=${DEMO_CLIENTS:-127.0.0.1}
token=${DEMO_TOKEN:-let-me-in}
password='demonstration'
patience=60 # seconds for anything to happen

certificates() { # what is certified for whom, the names in containers first
  for name in "${enclaves[@]}"; do echo "$name=$name.demo.local,${address[$name]}"; done
}

# The settings of an enclave that differ from its file, or that its file leaves to the environment.
settings() { # settings NAME DIRECTORY
  echo "POSTERN_CONFIG=$here/config/demo/$1.toml"
  echo "POSTERN__SERVER__NAME=${address[$1]}"
  echo "POSTERN__LISTENERS__CLIENT=$clients:${client_port[$1]}"
  echo "POSTERN__LISTENERS__FEDERATION_TLS=${address[$1]}:$federation_port"
  echo "POSTERN__LISTENERS__TLS_CERTIFICATE_FILE=$2/tls/$1/$1.pem"
  echo "POSTERN__LISTENERS__TLS_KEY_FILE=$2/tls/$1/$1.key"
  echo "POSTERN__FEDERATION__CERTIFICATE_AUTHORITIES_FILE=$2/tls/$1/authority.pem"
  echo "POSTERN__DATABASE__PATH=$2/$1"
  echo "POSTERN__REGISTRATION__TOKEN=$token"
  [ -z "${DEMO_BORDER:-}" ] || echo "POSTERN__BORDER__DIRECTORY=$(realpath "$DEMO_BORDER")/$1"
}

check=no
case ${1:-} in
  '') ;;
  --check) check=yes ;;
  --plan)
    for name in "${enclaves[@]}"; do
      echo "$name.client_port=${client_port[$name]}"
      settings "$name" DIRECTORY | sed "s/^/$name./"
    done
    certificates | sed 's/^/certificate./'
    exit
    ;;
  *) echo "unknown argument: $1" >&2 && exit 2 ;;
esac

if [ -z "${POSTERN_BIN:-}" ]; then
  # shellcheck source=prepare.sh
  cd "$here" && . scripts/prepare.sh
  cargo build --release --bin postern
  POSTERN_BIN=$CARGO_TARGET_DIR/release/postern
fi
command -v openssl >/dev/null || { echo "missing on this machine: openssl, for the certificates" >&2; exit 1; }

work=$(mktemp -d "${TMPDIR:-/tmp}/postern-demo.XXXXXX")
declare -A process=()
finish() {
  trap '' INT TERM
  for name in "${!process[@]}"; do kill -TERM "${process[$name]}" 2>/dev/null || true; done
  for name in "${!process[@]}"; do
    wait "${process[$name]}" || echo "$name ended with status $?" >&2
  done
  rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM

# Keys of the environment that are none of this script's must not change the enclaves.
mapfile -t foreign < <(compgen -e | grep '^POSTERN_' || true)
enclave() { # enclave NAME COMMAND...: the program with the settings of an enclave
  local name=$1 own
  shift
  mapfile -t own < <(settings "$name" "$work")
  exec env "${foreign[@]/#/--unset=}" "${own[@]}" "$POSTERN_BIN" "$@"
}

mapfile -t certified < <(certificates)
"$here/scripts/demo-certificates.sh" "$work/tls" "${certified[@]}"
for name in "${enclaves[@]}"; do
  (enclave "$name" serve >"$work/$name.printed" 2>"$work/$name.log") &
  process[$name]=$!
done

failed() {
  echo "$1" >&2
  for name in "${enclaves[@]}"; do sed "s/^/$name: /" "$work/$name.log" >&2; done
  exit 1
}
deadline=$((SECONDS + patience))
until_true() { # until_true WHAT COMMAND...
  local what=$1
  shift
  until "$@"; do
    for name in "${enclaves[@]}"; do
      kill -0 "${process[$name]}" 2>/dev/null || failed "$name has ended"
    done
    [ "$SECONDS" -lt "$deadline" ] || failed "it takes too long: $what"
    sleep 0.2
  done
}
healthy() { (enclave "$1" health >/dev/null 2>&1); }
for name in "${enclaves[@]}"; do until_true "$name gets ready" healthy "$name"; done

# ---- What people do, over the client API. Nothing but bash speaks HTTP here: the answers are small and known.

call() { # call ENCLAVE ACCESS-TOKEN METHOD PATH [BODY]: the answer's body; fails unless it is a success
  local body=${5:-} answer port=${client_port[$1]}
  exec {socket}<>"/dev/tcp/$clients/$port" || return 1
  printf '%s %s HTTP/1.0\r\nHost: %s:%s\r\n' "$3" "/_matrix/client/v3/$4" "$clients" "$port" >&"$socket"
  [ -z "$2" ] || printf 'Authorization: Bearer %s\r\n' "$2" >&"$socket"
  printf 'Content-Type: application/json\r\nContent-Length: %s\r\n\r\n%s' "${#body}" "$body" >&"$socket"
  answer=$(cat <&"$socket")
  exec {socket}>&-
  answer=${answer//$'\r'/}
  echo "${answer#*$'\n\n'}"
  [[ $answer == 'HTTP/1.'?' 200'* ]]
}
field() { # field NAME: the first string of this name in the JSON on standard input
  sed -nE 's/.*"'"$1"'" *: *"([^"]*)".*/\1/p' | head -1
}
encoded() { # as a segment of a path
  local text=$1
  text=${text//'!'/%21} text=${text//':'/%3A} text=${text//'$'/%24}
  echo "$text"
}
register() { # register ENCLAVE: an account; its access token
  local answer
  answer=$(call "$1" '' POST register "{\"username\":\"${person[$1]}\",\"password\":\"$password\",
    \"auth\":{\"type\":\"m.login.registration_token\",\"token\":\"$token\",\"session\":\"$(
      call "$1" '' POST register '{}' | field session || true
    )\"}}") || { echo "$answer" >&2; return 1; }
  field access_token <<<"$answer"
}
shows() { call "$1" "$2" GET "sync?timeout=0" | grep -qF "$3"; } # shows ENCLAVE ACCESS-TOKEN TEXT

declare -A access=()
for name in "${enclaves[@]}"; do
  access[$name]=$(register "$name") || failed "no account on $name"
done
bob="@${person[bravo]}:${address[bravo]}"
room=$(call alpha "${access[alpha]}" POST createRoom \
  "{\"preset\":\"private_chat\",\"name\":\"Both enclaves\",\"invite\":[\"$bob\"]}" | field room_id) ||
  failed "no room on alpha"
until_true "the invite reaches bravo" shows bravo "${access[bravo]}" "$room"
call bravo "${access[bravo]}" POST "join/$(encoded "$room")" '{}' >/dev/null || failed "bravo does not join"
say() { # say ENCLAVE TEXT
  call "$1" "${access[$1]}" PUT "rooms/$(encoded "$room")/send/m.room.message/demo" \
    "{\"msgtype\":\"m.text\",\"body\":\"$2\"}" >/dev/null || failed "$1 does not take a message"
}
say alpha "Hello from alpha"
until_true "a message of alpha reaches bravo" shows bravo "${access[bravo]}" "Hello from alpha"
say bravo "Hello from bravo"
until_true "a message of bravo reaches alpha" shows alpha "${access[alpha]}" "Hello from bravo"

echo "Two enclaves run, and federate. Log in with any Matrix client:"
for name in "${enclaves[@]}"; do
  echo "  $name: homeserver http://$clients:${client_port[$name]}, user ${person[$name]} (@${person[$name]}:${address[$name]}), password $password"
done
echo "Both are in the room \"Both enclaves\". Further accounts take the registration token $token."
if [ "$check" = yes ]; then
  echo "An account on each, an invite and a message each way: everything worked."
  exit 0
fi
trap 'exit 0' INT TERM
echo "Ctrl-C ends both."
# Until one of them ends.
wait -n || true
failed "an enclave has ended"
