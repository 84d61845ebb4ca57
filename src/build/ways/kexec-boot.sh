#!/bin/sh
# Boots a NixOS system in place of the one that runs here. Made by firn.
set -eu

label=@label@
cmdline=@cmdline@
bytes=@bytes@ # of initrd.gz

fail() {
    echo "kexec-boot: $*" >&2
    exit 1
}

usage() {
    echo "usage: kexec-boot [--force] [--load-only] [--kexec-flags FLAGS] [--] [WORD...]"
    echo
    echo "Boots $label at once, in place of the system that runs here."
    echo "Each WORD is added to the kernel command line. --force: even if there seems to be too little memory."
    echo "--load-only: and leave the boot to kexec --exec. --kexec-flags: more options for kexec --load."
}

force=no
load_only=no
flags=
while [ $# -gt 0 ]; do
    case $1 in
        --force) force=yes ;;
        --load-only) load_only=yes ;;
        --kexec-flags) [ $# -ge 2 ] || fail "--kexec-flags wants options for kexec"; flags=$2; shift ;;
        -h | --help) usage; exit ;;
        --) shift; break ;;
        -*) fail "unknown option $1; kexec-boot --help lists them, and a word that begins with - comes after --" ;;
        *) break ;;
    esac
    shift
done
words="$cmdline${*:+ $*}"

[ "$(id -u)" = 0 ] || fail "this needs root: run it with sudo"

# Beside the script by the name it was called by, which may be a link among links, or else beside the script itself.
here=$(CDPATH='' cd -- "$(dirname "$0")" && pwd)
[ -e "$here/bzImage" ] || here=$(dirname "$(readlink -f "$0")")
for file in bzImage initrd.gz; do
    [ -r "$here/$file" ] || fail "$here/$file is not there: copy the whole tree, or unpack the whole tarball"
done
kib() { echo $(($(wc -c < "$here/$1") / 1024)); }
# More is fine: files of one host can be appended.
[ "$(kib initrd.gz)" -ge $((bytes / 1024)) ] || fail "$here/initrd.gz is cut off: copy it again"

# The kernel would cut it off without a word.
[ ${#words} -le 2047 ] || fail "the command line has ${#words} bytes and the kernel takes 2047: give fewer words"

command -v kexec > /dev/null || fail "there is no kexec: install the package kexec-tools (with Nix: nix-shell -p kexec-tools)"
[ -e /sys/kernel/kexec_loaded ] ||
    fail "the kernel that runs here cannot kexec (it is built without CONFIG_KEXEC); boot another one, or another way"
disabled=$(cat /proc/sys/kernel/kexec_load_disabled 2> /dev/null || true)
[ "$disabled" != 1 ] ||
    fail "kexec is switched off until the next reboot: take kernel.kexec_load_disabled out of the sysctl settings and reboot"

# A kernel that is locked down, as under Secure Boot, takes another one by this system call only, and looks at its signature.
case $(cat /sys/kernel/security/lockdown 2> /dev/null || true) in
    '' | *'[none]'*) syscall= ;;
    *) syscall=--kexec-file-syscall ;;
esac

# Loading takes the ramdisk twice, in kexec and in the kernel; booting, too, packed and unpacked. The rest is for the kernel.
needed=$((2 * $(kib initrd.gz) + $(kib bzImage) + 80 * 1024))
available=$(sed -n 's/^MemAvailable: *\([0-9]*\) kB$/\1/p' /proc/meminfo)
[ "${available:-0}" -ge $needed ] || [ $force = yes ] ||
    fail "$((${available:-0} / 1024)) MiB of memory are available and this takes $((needed / 1024)):" \
        "stop what needs memory, or try all the same with --force"

# shellcheck disable=SC2086 # flags are several words, or none
kexec ${syscall:+"$syscall"} $flags --load "$here/bzImage" --initrd="$here/initrd.gz" --command-line="$words" ||
    if [ "$syscall" ]; then
        fail "the kernel did not take $here/bzImage: it is locked down and takes kernels with a signature that it knows;" \
            "switch Secure Boot off in the firmware"
    else
        fail "the kernel did not take $here/bzImage; it says why in its log (dmesg)"
    fi

[ $load_only = no ] || exit 0
echo "kexec-boot: booting $label"
# systemd ends services and unmounts file systems first.
if [ -d /run/systemd/system ] && command -v systemctl > /dev/null; then
    exec systemctl kexec
fi
sync
exec kexec --exec
