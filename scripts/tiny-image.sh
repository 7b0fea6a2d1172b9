#!/usr/bin/env bash
# Builds the tiny guest: a Debian (or Ubuntu) kernel, busybox, dropbear, scp and sftp-server in a disk of some 20 MB
# that boots in seconds, even where every instruction is emulated. Nothing is mounted and no loop device is used.
#
#   scripts/tiny-image.sh            builds var/images/tiny.qcow2 unless it is there and made by these very files
#   TINY_IMAGE=PATH                  builds it elsewhere
#   TINY_FORCE=1                     builds it again (to pick up a newer kernel from the distribution)
#
# What the guest does is in tiny-image/rootfs/etc/tiny/boot.
set -euo pipefail
export LC_ALL=C
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
top=$(dirname "$here")
# shellcheck source=scripts/lib.sh
. "$here/lib.sh"

image=${TINY_IMAGE:-$top/var/images/tiny.qcow2}
work=$top/build/tiny-image
debs=$work/debs
log=$work/build.log

# ------------------------------------------------------------------ is there anything to do?

recipe=$(cd "$here" && find tiny-image.sh tiny-image -type f -print0 | sort -z | xargs -0 sha256sum |
    sha256sum | cut -d' ' -f1)
if [ -z "${TINY_FORCE:-}" ] && [ -s "$image" ] && [ "$(cat "$image.recipe" 2>/dev/null)" = "$recipe" ]; then
    faint "tiny guest image is up to date: $image"
    exit 0
fi

step "Building the tiny guest image"
started=$SECONDS
[ "$(dpkg --print-architecture 2>/dev/null)" = amd64 ] ||
    die "The tiny guest is built from Debian or Ubuntu packages for amd64." \
        "Elsewhere, put a qcow2 image of your own at $image and write '$recipe' into $image.recipe."
for tool in apt-get dpkg-deb modprobe depmod cpio gzip sfdisk mke2fs mcopy mformat syslinux qemu-img; do
    command -v "$tool" >/dev/null || PATH=$PATH:/usr/sbin:/sbin command -v "$tool" >/dev/null ||
        die "$tool is missing." "Run: make setup"
done
PATH=$PATH:/usr/sbin:/sbin
mkdir -p "$debs" "$(dirname "$image")"

# One build at a time: two installations may share this checkout.
exec 9>"$work/lock"
flock -n 9 || { note "another build is under way, waiting for it"; flock 9; }
rm -rf "$work/unpacked" "$work/root" "$work/initramfs" "$work"/*.img

# ------------------------------------------------------------------ packages

# depends_of PACKAGE: what it needs directly, one name a line, alternatives left out.
depends_of() { apt-cache depends --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces --no-enhances \
    "$1" 2>/dev/null | sed -n 's/^  \(Pre\)\?Depends: \([^<>]*\)$/\2/p'; }
exists() { [ -n "$(apt-cache show --no-all-versions "$1" 2>/dev/null)" ]; }

# Debian's cloud kernel is the smallest that has all of virtio; Ubuntu calls its nearest one "virtual".
choose_packages() {
    packages=()
    local meta name kernel
    for meta in linux-image-cloud-amd64 linux-image-virtual linux-image-amd64 linux-image-generic; do
        exists "$meta" && break
        meta=''
    done
    [ -n "$meta" ] || return 1
    for name in $(depends_of "$meta"); do
        case $name in linux-image-* | linux-modules-[0-9]*) packages+=("$name") ;; esac
    done
    # Ubuntu: the modules are a package of their own, which the kernel's image package needs.
    for kernel in "${packages[@]}"; do
        for name in $(depends_of "$kernel"); do
            case $name in linux-modules-[0-9]*) packages+=("$name") ;; esac
        done
    done
    # dropbear and the libraries it needs, to the end of the chain
    local queue=(dropbear-bin) seen=' '
    while [ ${#queue[@]} -gt 0 ]; do
        name=${queue[0]}
        queue=("${queue[@]:1}")
        case $seen in *" $name "*) continue ;; esac
        seen="$seen$name "
        packages+=("$name")
        for name in $(depends_of "$name"); do case $name in lib* | zlib*) queue+=("$name") ;; esac done
    done
    # scp and sftp-server need libc only; the other dependencies of their packages stay out.
    packages+=(busybox-static openssh-client openssh-sftp-server)
    mapfile -t packages < <(printf '%s\n' "${packages[@]}" | sort -u)
}

choose_packages || { refresh_package_lists "$log" && choose_packages; } ||
    die "apt knows no kernel package (linux-image-cloud-amd64, linux-image-virtual)." "See /etc/apt/sources.list*."

# fetch: downloads the packages that are not here yet, in the versions apt would install (apt checks the signatures).
fetch() { (cd "$debs" && apt-get -q -o APT::Sandbox::User=root download "${packages[@]}"); }
note "fetching ${#packages[@]} packages (30 to 50 MB the first time): kernel, busybox, dropbear, scp"
if ! quietly "$log" fetch; then
    refresh_package_lists "$log"
    choose_packages
    quietly "$log" fetch || die "The packages could not be fetched." "Is the network up? The log: $log"
fi

note "unpacking"
mkdir -p "$work/unpacked"
for package in "${packages[@]}"; do
    # the newest file of this name: older versions may lie beside it
    file=$(find "$debs" -name "${package}_*.deb" -printf '%T@ %p\n' | sort -rn | sed -n '1s/^[^ ]* //p')
    dpkg-deb --fsys-tarfile "$file" |
        tar -x -C "$work/unpacked" --exclude='./usr/share/doc*' --exclude='./usr/share/man*' --exclude='./usr/share/locale*'
done

unpacked=$work/unpacked
first() { find "$unpacked" "$@" -print 2>/dev/null | sort | sed -n 1p; }
kernel=$(first -path '*/boot/vmlinuz-*')
[ -n "$kernel" ] || die "No kernel in the packages fetched: ${packages[*]}" "The log: $log"
release=${kernel##*/vmlinuz-}
[ -d "$unpacked/lib/modules" ] || { mkdir -p "$unpacked/lib" && ln -s ../usr/lib/modules "$unpacked/lib/modules"; }
busybox=$(first -path '*bin/busybox' -type f)
dropbear=$(first -path '*bin/dropbear' -type f)
scp=$(first -path '*bin/scp' -type f)
sftp_server=$(first -path '*lib/openssh/sftp-server' -type f)

# ------------------------------------------------------------------ initramfs: modules, find the root, go there

note "initramfs for Linux $release"
initramfs=$work/initramfs
mkdir -p "$initramfs"/{bin,dev,proc,sys,modules,newroot}
depmod -b "$unpacked" "$release" 2>>"$log"
# In the order they have to be loaded; what is built in prints no insmod line.
wanted=(virtio_pci virtio_blk virtio_scsi virtio_net virtio_rng sd_mod sr_mod ext4 isofs nls_utf8 button evdev)
for module in "${wanted[@]}"; do
    modprobe -d "$unpacked" -S "$release" -q --show-depends "$module" 2>>"$log" || true
done | sed -n 's/^insmod \([^ ]*\).*/\1/p' | awk '!seen[$0]++' >"$work/modules"
while read -r module; do
    name=$(basename "$module")
    case $name in
    *.xz) xz -dc "$module" >"$initramfs/modules/${name%.xz}" ;;
    *.zst) zstd -q -dc "$module" >"$initramfs/modules/${name%.zst}" ;;
    *.gz) gzip -dc "$module" >"$initramfs/modules/${name%.gz}" ;;
    *) cp "$module" "$initramfs/modules/" ;;
    esac
    echo "/modules/${name%.ko*}.ko" >>"$initramfs/modules/order"
done <"$work/modules"
touch "$initramfs/modules/order"
cp "$busybox" "$initramfs/bin/busybox"
for applet in sh mount findfs insmod switch_root sleep; do ln -s busybox "$initramfs/bin/$applet"; done
install -m 755 "$here/tiny-image/init" "$initramfs/init"
(cd "$initramfs" && find . -print0 | sort -z | cpio --quiet -0 -o -H newc -R 0:0) | gzip -9n >"$work/initramfs.img"

# ------------------------------------------------------------------ root file system

note "root file system"
root=$work/root
mkdir -p "$root"/{bin,sbin,usr/bin,usr/lib/openssh,usr/sbin,lib64,lib,dev,proc,sys,run,tmp,mnt,root/.ssh,var/lib/tiny,var/log,etc/dropbear}
cp -R "$here/tiny-image/rootfs/." "$root/"
cp "$busybox" "$root/bin/busybox"
"$busybox" --list-full | while read -r applet; do
    [ -e "$root/$applet" ] || ln -s /bin/busybox "$root/$applet"
done
cp "$dropbear" "$root/usr/sbin/"
cp "$scp" "$root/usr/bin/"
cp "$sftp_server" "$root/usr/lib/openssh/"
ln -s openssh/sftp-server "$root/usr/lib/sftp-server" # where dropbear looks for it
# The libraries they need, as their own loader finds them.
loader=$(first -name 'ld-linux-x86-64.so.2')
paths=$(find "$unpacked" -type d \( -path '*/x86_64-linux-gnu' -o -name lib64 \) | paste -sd:)
for program in "$dropbear" "$scp" "$sftp_server"; do
    "$loader" --library-path "$paths" --list "$program" | sed -n 's/.* => \([^ ]*\) .*/\1/p'
done | sort -u |
    while read -r library; do cp -L "$library" "$root/lib/"; done
cp -L "$loader" "$root/lib64/"
for library in "$root"/lib/libcrypt.so.1 "$root"/lib/libc.so.6; do
    [ -e "$library" ] || note "warning: ${library##*/} was not found; ssh may not work in the guest"
done
{ grep '^PRETTY_NAME=' /etc/os-release | sed 's/^PRETTY_NAME="\(.*\)"/BUILT_FROM="\1"/'
  echo "KERNEL=$release"; } >>"$root/etc/os-release"
find "$root" -type d -exec chmod 755 {} +
chmod 755 "$root"/etc/tiny/* "$root"/etc/acpi/PWRF/*
chmod 600 "$root/etc/shadow"
chmod 700 "$root/root" "$root/root/.ssh"
chmod 1777 "$root/tmp"
[ "$(id -u)" != 0 ] || chown -hR 0:0 "$root"

# ------------------------------------------------------------------ the disk: MBR, FAT16 to boot from, ext4

note "disk"
mib=1048576
kernel_bytes=$(($(stat -c %s "$kernel") + $(stat -c %s "$work/initramfs.img")))
boot_mib=$((kernel_bytes / mib + 4))
[ "$boot_mib" -ge 10 ] || boot_mib=10
root_mib=32
disk=$work/disk.img
truncate -s $(((1 + boot_mib + root_mib) * mib)) "$disk"
printf 'label: dos\n1M %sM 6 *\n%sM %sM 83\n' "$boot_mib" $((1 + boot_mib)) "$root_mib" |
    sed 's/^\([0-9]*M\) \([0-9]*M\) \([0-9]*\)/start=\1, size=\2, type=\3/; s/ \*$/, bootable/' >"$work/table"
quietly "$log" sfdisk "$disk" <"$work/table" || die "sfdisk failed." "The log: $log"

fat=$work/boot.img
truncate -s "${boot_mib}M" "$fat"
# 16 sectors a cluster: reading through the BIOS goes a cluster at a time
mformat -i "$fat" -v TINYBOOT -H 2048 -T $((boot_mib * 2048)) -h 16 -s 63 -c 4 ::
mcopy -i "$fat" "$kernel" ::vmlinuz
mcopy -i "$fat" "$work/initramfs.img" ::initrd
mcopy -i "$fat" "$here/tiny-image/syslinux.cfg" ::syslinux.cfg
quietly "$log" syslinux --install "$fat" || die "syslinux could not make the boot partition." "The log: $log"
dd if="$fat" of="$disk" bs=1M seek=1 conv=notrunc,sparse status=none
mbr=$(find /usr/lib/syslinux /usr/lib/SYSLINUX -name mbr.bin 2>/dev/null | head -n 1)
[ -n "$mbr" ] || die "syslinux's mbr.bin is missing." "Run: apt-get install syslinux-common"
dd if="$mbr" of="$disk" bs=440 count=1 conv=notrunc status=none

quietly "$log" mke2fs -q -F -t ext4 -b 1024 -J size=1 -m 0 -I 256 -O ^metadata_csum,^64bit,^huge_file \
    -L tiny-root -d "$root" -E "offset=$(((1 + boot_mib) * mib)),root_owner=0:0,nodiscard" \
    "$disk" "${root_mib}M" || die "mke2fs could not make the root file system." "The log: $log"

qemu-img convert -q -f raw -O qcow2 -o cluster_size=64k "$disk" "$image.new"
mv "$image.new" "$image"
echo "$recipe" >"$image.recipe"
rm -rf "$work/unpacked" "$work/root" "$work/initramfs" "$work"/*.img
note "$image: $(($(stat -c %s "$image") / 1000000)) MB, Linux $release, in $(seconds_since $started) s"
