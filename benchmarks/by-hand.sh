#!/bin/bash
# What "How to build an OpenStack alternative" does for a VM, without any cloud: an overlay on the image, a tap on the
# bridge of a VXLAN segment, qemu. Prints the milliseconds that each VM took until its qemu ran, and ends it again.
#
#   unshare --net by-hand.sh IMAGE DIRECTORY TIMES ACCELERATOR
set -eu
image=$1 work=$2 times=$3 accelerator=$4
mkdir -p "$work"

ip link set lo up
ip -6 route add ff00::/8 dev lo table local
ip link add vxlan100 type vxlan id 100 dstport 4789 group ff05::100 dev lo
ip link add br100 type bridge
ip link set vxlan100 master br100
ip link set vxlan100 up
ip link set br100 up
ip addr add fd00:100::1/64 dev br100


for number in $(seq "$times"); do
    began=$EPOCHREALTIME
    qemu-img create -q -f qcow2 -b "$image" -F qcow2 "$work/disk.qcow2" 1G
    ip tuntap add dev "tap$number" mode tap
    ip link set "tap$number" master br100
    ip link set "tap$number" up
    qemu-system-x86_64 -name "vm$number" -machine q35 -accel "$accelerator" -cpu max -m 128M -smp 1 \
        -nodefaults -display none -serial "file:$work/console" -qmp "unix:$work/qmp,server=on,wait=off" \
        -drive "file=$work/disk.qcow2,if=virtio,format=qcow2" \
        -netdev "tap,id=net0,ifname=tap$number,script=no,downscript=no" -device virtio-net-pci,netdev=net0,romfile= \
        -daemonize -pidfile "$work/pid"
    ended=$EPOCHREALTIME
    awk -v a="$began" -v b="$ended" 'BEGIN { print (b - a) * 1000 }'
    kill "$(cat "$work/pid")"
    while kill -0 "$(cat "$work/pid" 2>/dev/null)" 2>/dev/null; do sleep 0.05; done
    ip link del "tap$number"
    rm -f "$work/disk.qcow2" "$work/pid" "$work/qmp"
done
