#!/bin/sh
# Boots a NixOS system instead of the running one. Made by firn.
set -eu

# Lengths in bytes, and no character but the ASCII ones.
LC_ALL=C

label=@label@
for_kernel=@for_kernel@
for_init=@for_init@ # the words after --
longest=@longest@ # bytes of the command line
words=@words@ # how many words the kernel can still pass to init
variables=@variables@ # the same for NAME=VALUE
bytes=@bytes@ # size of initrd.gz

fail() {
    printf 'kexec-boot: %s\n' "$*" >&2
    exit 1
}

usage() {
    echo "usage: kexec-boot [--force] [--load-only] [--kexec-flags FLAGS] [--] [PARAM...]"
    echo
    printf 'Boots %s now, instead of the running system. Needs root and kexec (kexec-tools).\n' "$label"
    echo
    echo "  PARAM                kernel parameter to append to the command line, with or without the kernel's quotes: a=\"b c\" or"
    echo "                       'a=b c'; a further -- begins those for init"
    echo "  --force              boot even if there seems to be too little memory, or too many parameters"
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

# White space for the kernel, besides the space.
nbsp=$(printf '\240')

has_space() {
    case $1 in
        *' '* | *"$nbsp"*) return 0 ;;
        *) return 1 ;;
    esac
}

# Sets $word: a parameter as it stands in a command line. The kernel knows double quotes around white space, and no backslash.
quote() {
    case $1 in
        *[[:cntrl:]]*) fail "the kernel parameter ${1%%[[:cntrl:]]*}... has a control character, such as a newline: remove it" ;;
    esac
    word=$1
    rest=$1
    while :; do
        case $rest in
            *'"'*) ;;
            *) break ;;
        esac
        ! has_space "${rest%%\"*}" || rest='"'
        rest=${rest#*\"}
        case $rest in
            *'"'*) rest=${rest#*\"} ;;
            *) fail "the kernel parameter $1 has a double quote that the kernel would read otherwise: it knows quotes only in pairs," \
                "around white space, as in key=\"a b\"; write it that way, or without quotes" ;;
        esac
    done
    has_space "$rest" || return 0
    [ "$rest" = "$1" ] ||
        fail "the kernel parameter $1 has white space outside of its double quotes: put both into quotes, as in key=\"a b\""
    key=${1%%=*}
    if [ "$key" = "$1" ] || [ -z "$key" ] || has_space "$key"; then word="\"$1\""; else word="$key=\"${1#*=}\""; fi
}

dashes=
[ -z "$for_init" ] || dashes=yes
given=
for parameter; do
    [ -n "$parameter" ] || continue
    if [ "$parameter" = -- ] && [ -z "$given" ]; then
        given=yes dashes=yes
        continue
    fi
    quote "$parameter"
    if [ -n "$given" ]; then
        for_init="$for_init${for_init:+ }$word" words=$((words - 1))
        continue
    fi
    for_kernel="$for_kernel $word"
    # Words with a dot in their names are for modules.
    case ${word%%=*} in
        *.*) ;;
        "$word") words=$((words - 1)) ;;
        *) variables=$((variables - 1)) ;;
    esac
done
parameters="$for_kernel${dashes:+ --}${for_init:+ $for_init}"

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

# The kernel would truncate a longer one without a message, and kexec needs some of its room.
[ ${#parameters} -le "$longest" ] ||
    fail "the command line has ${#parameters} bytes, and kexec loads a kernel with at most $longest: give fewer parameters"
# With more it panics before it shows anything. Those that it knows itself do not count, but nobody knows them here.
[ $words -ge 0 ] && [ $variables -ge 0 ] || [ $force = yes ] ||
    fail "there may be more parameters than the kernel can pass to init, and it would panic: give fewer, or try anyway with --force"

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
printf 'kexec-boot: booting %s\n' "$label"
# systemd ends services and unmounts file systems first.
if [ -d /run/systemd/system ] && command -v systemctl > /dev/null; then
    exec systemctl kexec
fi
sync
exec kexec --exec
