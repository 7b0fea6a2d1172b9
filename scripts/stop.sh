#!/usr/bin/env bash
# Stops the cloud in $STATE and all its servers. With --remove-state also deletes the state directory.
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
if [ -e "$STATE/installation.json" ]; then
    [ -x .venv/bin/sixstack ] || die ".venv is missing, so the servers in $STATE cannot be stopped." "Run: make setup"
    step "Stopping the cloud in $STATE and its servers"
    .venv/bin/sixstack down --servers --state "$STATE"
else
    note "nothing to stop: no cloud was started in $STATE"
fi
[ "${1:-}" = --remove-state ] || exit 0

# Delete only a directory that contains files of Sixstack.
is_ours() {
    local name
    [ -n "$(ls -A "$STATE")" ] || return 0
    for name in installation.json sixstack.log clouds.yaml images/tiny.qcow2; do
        [ ! -e "$STATE/$name" ] || return 0
    done
    return 1
}
is_ours || die "$STATE does not look like the state of a Sixstack; it was not deleted."
rm -rf -- "${STATE:?}"
note "removed $STATE"
