# Shared functions of the scripts: messages (colored on terminals only), and an apt-get update at most once per run.
# shellcheck shell=bash

if [ -t 1 ] && [ "${TERM:-dumb}" != dumb ] && [ -z "${NO_COLOR:-}" ]; then
    bold=$'\e[1m' dim=$'\e[2m' red=$'\e[31m' plain=$'\e[0m'
else
    bold='' dim='' red='' plain=''
fi

step() { printf '%s==>%s %s\n' "$bold" "$plain" "$*"; }
note() { printf '    %s\n' "$*"; }
faint() { printf '    %s%s%s\n' "$dim" "$*" "$plain"; }

# die MESSAGE [HINT]...: prints the error and hints, and exits with status 1.
die() {
    printf '%sError:%s %s\n' "$red" "$plain" "$1" >&2
    shift
    for hint; do printf '       %s\n' "$hint" >&2; done
    exit 1
}

# quietly LOG COMMAND...: writes the command's output to LOG and shows its end only on failure.
quietly() {
    local log=$1
    shift
    if ! "$@" >"$log" 2>&1; then
        tail -n 25 "$log" | sed 's/^/    | /' >&2
        return 1
    fi
}

seconds_since() { echo $((SECONDS - $1)); }

# Refreshes the package lists once per run; call it only when apt lacks a package.
lists_are_fresh=''
refresh_package_lists() {
    [ -z "$lists_are_fresh" ] || return 0
    note "refreshing the package lists (apt-get update)"
    quietly "$1" apt-get update -q ||
        die "apt-get update failed." "Is the network up? See /etc/apt/sources.list*, then try again."
    lists_are_fresh=yes
}
