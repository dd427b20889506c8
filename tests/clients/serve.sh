#!/usr/bin/env bash
# Becomes the server a suite talks to: serve.sh DIRECTORY PORT. Runs the program named by POSTERN_BIN, with its data in
# DIRECTORY, so that a server started there again goes on with it. Accounts take POSTERN_TOKEN as registration token.
# Its process is noted in POSTERN_PIDS, for whoever cleans up behind a suite that did not.
#
# All else is as an administrator finds it, except the limits that would only make the tests wait: all accounts
# of a suite come from one address.
set -euo pipefail
[ -z "${POSTERN_PIDS:-}" ] || echo $$ >>"$POSTERN_PIDS"
exec "$POSTERN_BIN" serve \
  --set "database.path=$1/graph" \
  --set "listeners.client=127.0.0.1:$2" \
  --set "registration.token=$POSTERN_TOKEN" \
  --set "rate_limits.registration_burst=10000" \
  --set "rate_limits.login_burst=10000" \
  --set "rate_limits.message_burst=10000" \
  --set "log.level=info"
