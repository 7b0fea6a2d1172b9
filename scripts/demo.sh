#!/usr/bin/env bash
# Starts a cloud (unless it runs), boots a server in it with the openstack command, and logs in with ssh.
# Idempotent: existing images, keys and servers are reused.
#
#   STATE=./var              state directory of the cloud, also of the demo's key
#   LISTEN=127.0.0.1:8774    address of the API
#   SSH_SECONDS=180          timeout of the ssh login
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/lib.sh
. "$here/lib.sh"
cd "$(dirname "$here")"

STATE=${STATE:-./var}
LISTEN=${LISTEN:-127.0.0.1:8774}
SSH_SECONDS=${SSH_SECONDS:-180}
image_file=${TINY_IMAGE:-var/images/tiny.qcow2}
began=$SECONDS

[ "$(id -u)" = 0 ] || die "The demo requires root to create network devices." "Run: sudo make demo"
mkdir -p "$STATE"
STATE=$(cd "$STATE" && pwd)
log=$STATE/sixstack.log

# ------------------------------------------------------------------ the cloud

start_cloud() {
    step "Starting the cloud on $LISTEN (log: $log)"
    touch "$log"
    local cloud waited=$SECONDS before
    before=$(stat -c %s "$log")
    setsid nohup .venv/bin/sixstack up --state "$STATE" --listen "$LISTEN" </dev/null >>"$log" 2>&1 &
    cloud=$!
    # It prints one line when both the API and the agent are ready.
    until tail -c "+$((before + 1))" "$log" | grep -q '^Sixstack answers'; do
        kill -0 "$cloud" 2>/dev/null || {
            tail -n 5 "$log" | sed 's/^/    | /' >&2
            die "The cloud did not start; the end of its log is above." \
                "Another address: make demo LISTEN=127.0.0.1:8784" "The whole log: $log"
        }
        [ $((SECONDS - waited)) -lt 60 ] || die "The cloud did not answer within a minute." "The log: $log"
        sleep 0.1
    done
    note "ready after $(seconds_since "$waited") s"
}

if [ -e "$STATE/clouds.yaml" ] && .venv/bin/sixstack status --state "$STATE" >/dev/null 2>&1; then
    step "The cloud in $STATE is running already"
else
    start_cloud
fi

# ------------------------------------------------------------------ a server, with the openstack command

export OS_CLIENT_CONFIG_FILE=$STATE/clouds.yaml OS_CLOUD=sixstack
# Unset OpenStack variables of the calling shell.
for name in $(compgen -e OS_); do
    case $name in OS_CLIENT_CONFIG_FILE | OS_CLOUD) ;; *) unset "$name" ;; esac
done
openstack=$PWD/.venv/bin/openstack
environment="OS_CLIENT_CONFIG_FILE=$OS_CLIENT_CONFIG_FILE OS_CLOUD=sixstack PATH=$PWD/.venv/bin:\$PATH"

# run ARGS...: shows the command, then runs it.
run() {
    printf '    %s$ openstack %s%s\n' "$bold" "$*" "$plain"
    "$openstack" "$@" | sed 's/^/    /'
}
# ask ARGS...: one value, empty when there is no such thing.
ask() { "$openstack" "$@" -f value 2>/dev/null || true; }

if [ "$(ask image show tiny -c status)" != active ]; then
    step "Uploading the image"
    run image create --disk-format qcow2 --container-format bare --file "$image_file" -c id -c name -c status -c size tiny
fi

key=$STATE/demo_key
if [ ! -s "$key" ] || [ -z "$(ask keypair show demo -c name)" ]; then
    step "Creating a key pair"
    rm -f "$key"
    "$openstack" keypair delete demo 2>/dev/null || true
    (umask 077 && run keypair create --private-key "$key" -c name -c fingerprint demo)
    chmod 600 "$key"
fi

create_server() {
    step "Creating a server"
    local booting=$SECONDS
    run server create --flavor tiny --image tiny --key-name demo --wait -c id -c name -c status demo ||
        die "The server could not be created: $(ask server show demo -c fault)" "The cloud's log: $log" \
            "After fixing the cause: make demo"
    note "ACTIVE after $(seconds_since "$booting") s"
}

case $(ask server show demo -c status) in
'') create_server ;;
ACTIVE) step "The server demo is there already" ;;
SHUTOFF)
    step "The server demo is there, starting it"
    run server start demo
    ;;
ERROR)
    step "The server demo is in ERROR, recreating it: $(ask server show demo -c fault)"
    run server delete --wait demo
    create_server
    ;;
*) step "The server demo is there already, but not ACTIVE yet" ;;
esac

step "The server"
run server show demo -c name -c status -c accessIPv6 -c addresses -c image -c key_name -c created |
    tee "$STATE/demo.txt"
address=$(sed -n 's/^ *| accessIPv6 *| *\([0-9a-fA-F:]*\) *|.*/\1/p' "$STATE/demo.txt")
[ -n "$address" ] || die "The server has no IPv6 address." "See: $environment openstack server show demo"

# ------------------------------------------------------------------ in by ssh

step "Logging in: root@$address"
ssh_options=(-i "$key" -o "UserKnownHostsFile=$STATE/demo_known_hosts" -o StrictHostKeyChecking=accept-new)
waited=$SECONDS
# A long timeout for the banner and one attempt per second, so as not to slow down a booting guest.
until answer=$(ssh "${ssh_options[@]}" -o BatchMode=yes -o ConnectTimeout=20 "root@$address" uname -a 2>"$STATE/demo_ssh.err"); do
    [ $((SECONDS - waited)) -lt "$SSH_SECONDS" ] || {
        sed 's/^/    | /' "$STATE/demo_ssh.err" >&2
        "$openstack" console log show --lines 20 demo | sed 's/^/    | /' >&2 || true
        die "ssh login failed within $SSH_SECONDS s; the output of ssh and the console is above." \
            "See also: $environment openstack console log show demo" "The cloud's log: $log"
    }
    sleep 1
done
rm -f "$STATE/demo_ssh.err" "$STATE/demo.txt"
note "${bold}$answer$plain"
note "logged in after $(seconds_since "$waited") s; the demo took $(seconds_since "$began") s"

cat <<END

Log in:

    ssh -i $key -o UserKnownHostsFile=$STATE/demo_known_hosts root@$address

Use the cloud from this shell:

    export OS_CLIENT_CONFIG_FILE=$STATE/clouds.yaml OS_CLOUD=sixstack
    export PATH=$PWD/.venv/bin:\$PATH

Try next:

    openstack console log show demo
    openstack server create --flavor tiny --image tiny --key-name demo --max 5 --wait many
    openstack server stop demo && openstack server list

make stop stops everything; make clean also deletes it.
END
