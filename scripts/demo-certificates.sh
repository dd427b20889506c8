#!/usr/bin/env bash
# Makes the demonstration's certificate authority, and a certificate for each enclave:
#
#   scripts/demo-certificates.sh DIRECTORY NAME=HOST,ADDRESS...
#
# writes DIRECTORY/NAME/{authority.pem,NAME.pem,NAME.key} for the given DNS names and IP addresses, a directory for each
# enclave, so that none needs to see another's key. What is there already stays. The authority's own key is not kept:
# nothing can be signed by it later, so there is nothing to guard.
set -euo pipefail
umask 077
directory=$1
shift
complete=yes
for enclave in "$@"; do
  name=${enclave%%=*}
  mkdir -p "$directory/$name"
  [ -e "$directory/$name/complete" ] || complete=no
done
[ "$complete" = no ] || exit 0

work=$(mktemp -d "${TMPDIR:-/tmp}/postern-authority.XXXXXX")
trap 'rm -rf "$work"' EXIT

curve=(-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes)
openssl req -x509 "${curve[@]}" -keyout "$work/authority.key" -out "$work/authority.pem" -days 30 \
  -subj "/CN=Postern demonstration" -addext "basicConstraints=critical,CA:TRUE" \
  -addext "keyUsage=critical,keyCertSign,cRLSign" 2>"$work/log" || { cat "$work/log" >&2; exit 1; }
for enclave in "$@"; do
  name=${enclave%%=*} alternatives=()
  IFS=, read -ra hosts <<<"${enclave#*=}"
  for host in "${hosts[@]}"; do
    case $host in
      *[!0-9.]*) alternatives+=("DNS:$host") ;;
      *) alternatives+=("IP:$host") ;;
    esac
  done
  {
    openssl req "${curve[@]}" -keyout "$work/$name.key" -out "$work/$name.csr" -subj "/CN=${hosts[0]}"
    openssl x509 -req -in "$work/$name.csr" -CA "$work/authority.pem" -CAkey "$work/authority.key" -CAcreateserial \
      -out "$work/$name.pem" -days 30 -extfile <(
        echo "subjectAltName=$(IFS=,; echo "${alternatives[*]}")"
        echo "extendedKeyUsage=serverAuth"
        echo "basicConstraints=critical,CA:FALSE"
      )
  } 2>"$work/log" || { cat "$work/log" >&2; exit 1; }
  cp "$work/$name.pem" "$work/$name.key" "$work/authority.pem" "$directory/$name"
done
for enclave in "$@"; do touch "$directory/${enclave%%=*}/complete"; done
