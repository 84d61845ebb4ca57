#!/bin/sh
# Boots a NixOS system instead of the running one. Made by firn.
set -eu

label=@label@
cmdline=@cmdline@
bytes=@bytes@ # size of initrd.gz

fail() {
    echo "kexec-boot: $*" >&2
    exit 1
}

usage() {
    echo "usage: kexec-boot [--force] [--load-only] [--kexec-flags FLAGS] [--] [PARAM...]"
    echo
    echo "Boots $label now, instead of the running system. Needs root and kexec (kexec-tools)."
    echo
    echo "  PARAM                kernel parameter to append to the command line"
    echo "  --force              boot even if there seems to be too little memory"
    echo "  --load-only          only load the kernel; kexec --exec boots it"
    echo "  --kexec-flags FLAGS  more options for kexec --load"
}

force=no
load_only=no
flags=
while [ $# -gt 0 ]; do
    case $1 in
        --force) force=yes ;;
        --load-only) load_only=yes ;;
        --kexec-flags) [ $# -ge 2 ] || fail "--kexec-flags needs options for kexec"; flags=$2; shift ;;
        -h | --help) usage; exit ;;
        --) shift; break ;;
        -*) fail "unknown option $1; kexec-boot --help lists the options; a kernel parameter that begins with - comes after --" ;;
        *) break ;;
    esac
    shift
done
parameters="$cmdline${*:+ $*}"

[ "$(id -u)" = 0 ] || fail "this needs root: run it with sudo"

# The files lie in the directory of the path that was called, which may be a symlink among symlinks, or beside the script itself.
here=$(CDPATH='' cd -- "$(dirname "$0")" && pwd)
[ -e "$here/bzImage" ] || here=$(dirname "$(readlink -f "$0")")
for file in bzImage initrd.gz; do
    [ -r "$here/$file" ] || fail "$here/$file is missing: copy the whole directory, or unpack the whole tarball"
done
kib() { echo $(($(wc -c < "$here/$1") / 1024)); }
# A larger file is fine: the files of one host can be appended.
[ "$(kib initrd.gz)" -ge $((bytes / 1024)) ] || fail "$here/initrd.gz is truncated: copy it again"

# The kernel would truncate it without a message.
[ ${#parameters} -le 2047 ] || fail "the command line has ${#parameters} bytes, and the kernel reads only 2047: give fewer parameters"

command -v kexec > /dev/null || fail "there is no kexec: install the package kexec-tools (with Nix: nix-shell -p kexec-tools)"
[ -e /sys/kernel/kexec_loaded ] ||
    fail "the running kernel has no kexec (CONFIG_KEXEC); boot another kernel first, or use another boot method"
disabled=$(cat /proc/sys/kernel/kexec_load_disabled 2> /dev/null || true)
[ "$disabled" != 1 ] ||
    fail "kexec is disabled until the next reboot: remove kernel.kexec_load_disabled from the sysctl settings, and reboot"

# A kernel that is locked down, as with Secure Boot, loads another one only by this system call, which checks its signature.
case $(cat /sys/kernel/security/lockdown 2> /dev/null || true) in
    '' | *'[none]'*) syscall= ;;
    *) syscall=--kexec-file-syscall ;;
esac

# Loading needs memory for two copies of the ramdisk, in kexec and in the kernel; booting, too, packed and unpacked. The rest is for
# the kernel.
needed=$((2 * $(kib initrd.gz) + $(kib bzImage) + 80 * 1024))
available=$(sed -n 's/^MemAvailable: *\([0-9]*\) kB$/\1/p' /proc/meminfo)
[ "${available:-0}" -ge $needed ] || [ $force = yes ] ||
    fail "$((${available:-0} / 1024)) MiB of memory are available, and the boot needs $((needed / 1024)) MiB:" \
        "stop programs to free memory, or try anyway with --force"

# shellcheck disable=SC2086 # flags are several arguments, or none
kexec ${syscall:+"$syscall"} $flags --load "$here/bzImage" --initrd="$here/initrd.gz" --command-line="$parameters" ||
    if [ "$syscall" ]; then
        fail "the running kernel refused $here/bzImage: it is locked down, and loads only kernels with a trusted signature;" \
            "turn Secure Boot off in the firmware"
    else
        fail "the running kernel refused $here/bzImage; the reason is in its log (dmesg)"
    fi

[ $load_only = no ] || exit 0
echo "kexec-boot: booting $label"
# systemd ends services and unmounts file systems first.
if [ -d /run/systemd/system ] && command -v systemctl > /dev/null; then
    exec systemctl kexec
fi
sync
exec kexec --exec
