#!/usr/bin/env bash
# Tests with real clients, as they come from their registries, against the program named by POSTERN_BIN (else a release
# build): run.sh [nio|js|sdk]... runs those, without arguments all. The last line counts all tests.
#
# What the clients need is installed once into the user's cache, apart for each set of pinned versions. A client
# that cannot be installed here is one skipped test, with the reason.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
suites=("$@")
[ $# -gt 0 ] || suites=(nio js sdk)

# shellcheck source=../../scripts/prepare.sh
cd "$here/../.." && . scripts/prepare.sh clients
if [ -z "${POSTERN_BIN:-}" ]; then
  cargo build --release --bin postern
  POSTERN_BIN=$CARGO_TARGET_DIR/release/postern
fi
POSTERN_BIN=$(realpath "$POSTERN_BIN")
export POSTERN_BIN POSTERN_SERVE=$here/serve.sh POSTERN_TOKEN=let-me-in
cache=${XDG_CACHE_HOME:-$HOME/.cache}/postern
mkdir -p "$cache"

work=$(mktemp -d "${TMPDIR:-/tmp}/postern-clients.XXXXXX")
log=$work/log
export POSTERN_PIDS=$work/pids
finish() {
  # Servers of a suite that was ended in the middle.
  while read -r pid; do
    [ "$(readlink "/proc/$pid/exe")" != "$POSTERN_BIN" ] || kill -KILL "$pid"
  done < <(cat "$POSTERN_PIDS" 2>/dev/null) || true
  rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM
passed=0 failed=0 skipped=0

skip() { # skip NAME REASON
  skipped=$((skipped + 1))
  echo "SKIPPED: $1: $2" >&2
}
# The output of a suite is indented, so that its counts are not taken for those of the whole.
suite() { # suite NAME COMMAND...: runs tests; $log has what they print, $status how they ended
  echo "$1:"
  status=0
  "${@:2}" 2>&1 | tee "$log" | sed -u 's/^/  /' || status=$?
}
number() { # number EXPRESSION: the sum of what a sed expression finds in $log
  sed -nE "$1" "$log" | awk '{ sum += $1 } END { print sum + 0 }'
}
count() { # count NAME PASSED FAILED SKIPPED
  passed=$((passed + $2)) failed=$((failed + $3)) skipped=$((skipped + $4))
  if [ "$status" != 0 ] && [ "$3" = 0 ]; then
    failed=$((failed + 1))
    echo "$1: ended with status $status" >&2
  fi
}
installed() { # installed DIRECTORY: whether an installation was completed; what is there of another goes
  [ ! -e "$1/complete" ] || return 0
  rm -rf "$1"
  mkdir -p "$1"
  return 1
}
key() { sha256sum | cut -c1-16; }

nio() {
  local venv
  venv=$("$here/../venv.sh" clients-nio "$here/nio/requirements.txt") ||
    { skip nio "matrix-nio could not be installed, see above"; return; }
  suite nio env -C "$here/nio" PYTHONDONTWRITEBYTECODE=1 "$venv/bin/python" main.py
  count nio "$(number 's/^([0-9]+) passed, .*/\1/p')" "$(number 's/^[0-9]+ passed, ([0-9]+) failed, .*/\1/p')" \
    "$(number 's/^[0-9]+ passed, .* ([0-9]+) skipped$/\1/p')"
}

js() {
  local modules version
  has node && has npm || { skip js "there is no node or no npm"; return; }
  version=$(node --version | sed -E 's/^v([0-9]+).*/\1/')
  [ "$version" -ge 20 ] || { skip js "node is older than 20: $(node --version)"; return; }
  modules=$cache/clients-js-$(cat "$here/js/package-lock.json" | key)
  if ! installed "$modules"; then
    cp "$here/js/package.json" "$here/js/package-lock.json" "$modules"
    (cd "$modules" && npm ci --silent --no-audit --no-fund --ignore-scripts) ||
      { skip js "matrix-js-sdk could not be installed, see above"; return; }
    touch "$modules/complete"
  fi
  # Node looks for modules beside the file that imports them.
  mkdir "$work/js"
  cp "$here"/js/*.js "$here/js/package.json" "$work/js"
  ln -s "$modules/node_modules" "$work/js/node_modules"
  suite js env -C "$work/js" node --test --test-force-exit --test-reporter=spec
  count js "$(number 's/^ℹ pass ([0-9]+)$/\1/p')" "$(number 's/^ℹ (fail|cancelled) ([0-9]+)$/\2/p')" \
    "$(number 's/^ℹ skipped ([0-9]+)$/\1/p')"
}

sdk() {
  local cargo=(env -C "$here/sdk" "CARGO_TARGET_DIR=$cache/clients-sdk-target" cargo)
  "${cargo[@]}" fetch --locked --quiet || { skip sdk "matrix-sdk could not be downloaded, see above"; return; }
  suite sdk "${cargo[@]}" test --locked --quiet --lib
  count sdk "$(number 's/^test result: .* ([0-9]+) passed; .*/\1/p')" \
    "$(number 's/^test result: .* ([0-9]+) failed; .*/\1/p')" \
    "$(number 's/^test result: .* ([0-9]+) ignored; .*/\1/p')"
}

for name in "${suites[@]}"; do
  case $name in
    nio | js | sdk) "$name" ;;
    *) echo "there is no suite $name: nio, js and sdk are" >&2 && exit 2 ;;
  esac
done
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
