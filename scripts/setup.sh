#!/usr/bin/env bash
# Installs what Sixstack needs and does not find: Debian or Ubuntu packages, then .venv with the locked dependencies.
# Says first what it will install. When nothing has changed since the last time it does nothing, in milliseconds.
#
#   PYTHON=/path/to/python3.12 scripts/setup.sh     uses another Python (3.11 or newer)
#   scripts/setup.sh --tests                        also what only the tests need
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
top=$(dirname "$here")
# shellcheck source=scripts/lib.sh
. "$here/lib.sh"
cd "$top"
PATH=$PATH:/usr/sbin:/sbin
log=$top/build/setup.log

# What is looked for (a command, or a file when it starts with /) and the package that brings it.
needed='
qemu-system-x86_64                        qemu-system-x86
qemu-img                                  qemu-utils
radvd                                     radvd
ip                                        iproute2
nft                                       nftables
tayga                                     tayga
unbound                                   unbound
ssh                                       openssh-client
syslinux                                  syslinux
/usr/lib/syslinux/mbr/mbr.bin             syslinux-common
mcopy                                     mtools
sfdisk                                    fdisk
mke2fs                                    e2fsprogs
modprobe                                  kmod
cpio                                      cpio
xz                                        xz-utils
zstd                                      zstd
/etc/ssl/certs/ca-certificates.crt        ca-certificates
'
needed_by_tests='
/usr/lib/postgresql                       postgresql
runuser                                   util-linux
rabbitmq-server                           rabbitmq-server
named                                     bind9
systemd-analyze                           systemd
'
[ "${1:-}" != --tests ] || needed+=$needed_by_tests

missing_packages() {
    local what package
    while read -r what package; do
        case $what in
        '') ;;
        /*) [ -e "$what" ] || echo "$package" ;;
        *) command -v "$what" >/dev/null || echo "$package" ;;
        esac
    done <<<"$needed"
}

# The first Python that is new enough; fails when there is none.
find_python() {
    local candidate
    for candidate in "${PYTHON:-python3}" python3.13 python3.12 python3.11; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    return 1
}

# ------------------------------------------------------------------ is there anything to do?

wanted=$({
    echo "$top"
    cat requirements-dev.lock pyproject.toml scripts/setup.sh
} | sha256sum | cut -d' ' -f1)
stamp=.venv/installed
mapfile -t packages < <(missing_packages)
if [ ${#packages[@]} -eq 0 ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] && [ -x .venv/bin/python ]; then
    faint "everything is installed"
    exit 0
fi

# ------------------------------------------------------------------ packages of the distribution

[ -w . ] || die "$top cannot be written to." "Run this as its owner, or with sudo."
mkdir -p build
: >"$log" || die "$log cannot be written to." "It was made by another user: run this with sudo."
if ! python=$(find_python); then
    command -v "${PYTHON:-python3}" >/dev/null &&
        die "Python 3.11 or newer is needed; ${PYTHON:-python3} is $("${PYTHON:-python3}" -V 2>&1)." \
            "Debian 12 and Ubuntu 24.04 have it. Another one: make PYTHON=/path/to/python3.12 setup"
    packages+=(python3)
    python=/usr/bin/python3
fi
# Debian's own Python leaves venv and ensurepip to a package; any other has them.
if [ ! -x "$python" ]; then
    packages+=(python3-venv)
elif ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    packages+=("python$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv")
fi

# Shows how far apt is; what it says goes to the log.
apt_progress() {
    tee -a "$log" | awk '
        / newly installed, /  { for (i = 2; i <= NF; i++) if ($i == "newly") total = $(i - 1) }
        /^Need to get /       { sub("Need to get ", ""); sub(" of archives.*", ""); print "    fetching " $0; fflush() }
        /^Setting up /        { if (++n % 20 == 0 || n == total) print "    installed " n " of " total; fflush() }'
}

# Services that come with what we install. Sixstack and its tests start their own when they are told to; those of the
# distribution would hold ports, now and after each boot. Whoever had one before keeps it as it is.
unwanted=(tayga.service unbound.service rabbitmq-server.service epmd.socket epmd.service named.service)
is_known() { [ -e "/lib/systemd/system/$1" ] || [ -e "/etc/init.d/${1%.*}" ]; }
mapfile -t new_services < <(for unit in "${unwanted[@]}"; do is_known "$unit" || echo "$unit"; done)

install_packages() {
    # The tests start a PostgreSQL of their own; Debian's package is to start none.
    case " ${packages[*]} " in *' postgresql '*)
        [ -e /etc/postgresql-common/createcluster.conf ] || {
            mkdir -p /etc/postgresql-common
            echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf
        } ;;
    esac
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends -o Dpkg::Options::=--force-confold \
        -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 "${packages[@]}" 2>&1 | apt_progress
}

# While they are installed, Debian's way to say no; a computer that has a policy already (a container) keeps it.
policy=/usr/sbin/policy-rc.d is_ours=''
start_none() {
    [ ${#new_services[@]} -gt 0 ] && [ ! -e $policy ] || return 0
    is_ours=yes
    trap allow_all EXIT
    { echo '#!/bin/sh'
      echo '# Written by scripts/setup.sh of Sixstack for as long as it installs packages.'
      printf 'case $1 in %s) exit 101 ;; esac\n' "$(printf '%s\n' "${new_services[@]%.*}" "${new_services[@]}" | paste -sd'|')"
      echo 'exit 0'; } >$policy
    chmod 755 $policy
}
allow_all() { [ -z "$is_ours" ] || rm -f $policy; is_ours=''; }
start_none_later() {
    local unit
    for unit in "${new_services[@]}"; do
        ! is_known "$unit" || systemctl disable --now "$unit" >>"$log" 2>&1 || true
    done
}

if [ ${#packages[@]} -gt 0 ]; then
    step "Installing packages: ${packages[*]}"
    command -v apt-get >/dev/null ||
        die "This is not Debian or Ubuntu: there is no apt-get." "Install what these packages hold, then try again."
    [ "$(id -u)" = 0 ] ||
        die "Installing packages needs root." "Run it with sudo, or as root: apt-get install ${packages[*]}"
    # Lists that are absent (a container) or out of date (a 404 while fetching) are refreshed, once.
    apt-cache show "${packages[@]}" >/dev/null 2>&1 || refresh_package_lists "$log"
    start_none
    install_packages || {
        refresh_package_lists "$log"
        install_packages
    } || {
        tail -n 15 "$log" | sed 's/^/    | /' >&2
        die "apt-get could not install the packages." "The whole log: $log"
    }
    start_none_later
    allow_all
fi

# ------------------------------------------------------------------ .venv

if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ] || [ ! -x .venv/bin/python ]; then
    started=$SECONDS
    step "Installing the Python packages of requirements-dev.lock into .venv (a minute or less)"
    .venv/bin/python -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || {
        rm -rf .venv
        quietly "$log" "$python" -m venv .venv || die "$python could not make .venv." "The log: $log"
    }
    rm -f "$stamp"
    # Every package is announced as it is fetched; a line for every twentieth shows that it goes on.
    pip_progress() {
        tee -a "$log" | awk '
            /^Collecting /  { if (++n % 20 == 0) print "    fetched " n; fflush() }
            /^Installing collected/ { print "    fetched all " (n + 0) ", installing"; fflush() }'
    }
    pip() { .venv/bin/python -m pip --disable-pip-version-check --no-input "$@" 2>&1; }
    pip install --progress-bar off --no-compile --require-hashes -r requirements-dev.lock | pip_progress || {
        grep -E '^ *(ERROR|WARNING)' "$log" | tail -n 15 | sed 's/^/    | /' >&2
        die "pip could not install the locked packages." "Is the network up? The whole log: $log"
    }
    note "compiling"
    # Now and on all cores, so that nothing is slow the first time it is used.
    .venv/bin/python -W ignore -m compileall -q -j 0 .venv/lib >>"$log" 2>&1 || true
    note "the command: .venv/bin/sixstack"
    pip install --progress-bar off --no-deps -e . >>"$log" || {
        tail -n 15 "$log" | sed 's/^/    | /' >&2
        die "pip could not install Sixstack itself." "The whole log: $log"
    }
    echo "$wanted" >"$stamp"
    note "done in $(seconds_since "$started") s"
fi

# ------------------------------------------------------------------ noVNC

# The pages of Debian's package without what it depends on, which is a proxy of its own and half of OpenStack. Whoever
# cannot have them still has serial consoles, and screens by other clients.
if [ ! -e .venv/share/novnc/vnc_lite.html ] && command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null; then
    step "Fetching noVNC, the page that shows guests' screens"
    fetched=$(mktemp -d)
    trap 'rm -rf "$fetched"' EXIT
    fetch_novnc() { (cd "$fetched" && apt-get download -q novnc) >>"$log" 2>&1; }
    if { fetch_novnc || { (refresh_package_lists "$log") 2>>"$log" && fetch_novnc; }; } &&
        dpkg-deb -x "$fetched"/novnc_*.deb "$fetched/unpacked" >>"$log" 2>&1; then
        mkdir -p .venv/share
        rm -rf .venv/share/novnc
        cp -r "$fetched/unpacked/usr/share/novnc" .venv/share/novnc
    else
        note "noVNC could not be fetched; screens have no page until the next setup. The log: $log"
    fi
fi
