#!/usr/bin/env bash
# Ends the cloud in $STATE and all its servers. With --remove-state also removes what it kept.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/lib.sh
. "$here/lib.sh"
cd "$(dirname "$here")"
STATE=${STATE:-./var}

if [ ! -d "$STATE" ]; then
    note "nothing to stop: there is no $STATE"
    exit 0
fi
# Without the command or the database there is nothing that could run, or nothing that could end it.
if [ -e "$STATE/clouds.yaml" ] || [ -e "$STATE/sixstack.db" ]; then
    [ -x .venv/bin/sixstack ] || die ".venv is missing, so the servers in $STATE cannot be ended." "Run: make setup"
    step "Ending the cloud in $STATE and its servers"
    .venv/bin/sixstack down --servers --state "$STATE"
fi
[ "${1:-}" = --remove-state ] || exit 0

# A directory that is not ours is left alone, whatever STATE says.
if [ ! -e "$STATE/clouds.yaml" ] && [ ! -e "$STATE/sixstack.db" ] && [ ! -e "$STATE/images/tiny.qcow2" ] &&
    [ -n "$(ls -A "$STATE")" ]; then
    die "$STATE does not look like the state of a Sixstack; it is left as it is."
fi
rm -rf -- "${STATE:?}"
note "removed $STATE"
