#!/bin/sh
# Replaces the running system with the one in this directory, after six seconds, and copies the files that identify the host.
# nixos-anywhere runs it. It follows nix-community/nixos-images: the path kexec/run, the option --kexec-extra-flags and the line
# that it prints.
set -eu

flags=
while [ $# -gt 0 ]; do
    case $1 in
        --kexec-extra-flags) flags=${2-}; [ $# -lt 2 ] || shift ;;
        *) echo "kexec/run: unknown option $1; the only option is --kexec-extra-flags FLAGS" >&2; exit 1 ;;
    esac
    shift
done

here=$(dirname "$(readlink -f "$0")")
PATH=$here:$PATH
work=$(mktemp -d "$here/carry.XXXXXX")
trap 'rm -rf "$work"' EXIT
root=$work/firn/root # stage 1 copies the files below it to the root of the new system
mkdir -p "$root"

# Makes a directory and its parents below $root, with the modes that they have here.
directory() {
    [ -d "$root$1" ] && return
    directory "$(dirname "$1")"
    mkdir -m "$(stat -c %a "$1")" "$root$1"
}

for file in @carry@; do
    [ -e "$file" ] || continue
    directory "$(dirname "$file")"
    cp -a "$file" "$root$file"
done

# Root of the new system accepts the SSH keys of root here and of the user who ran sudo or doas. Options before a key are removed,
# such as the forced command with which cloud images keep root out.
user=${SUDO_USER:-${DOAS_USER:-root}}
home=$(sed -n "s|^$user:.*:\\([^:]*\\):[^:]*$|\\1|p" /etc/passwd)
mkdir -p "$root/root/.ssh" "$root/root/network"
chmod 700 "$root/root" "$root/root/.ssh"
for file in /root/.ssh/authorized_keys /root/.ssh/authorized_keys2 "$home/.ssh/authorized_keys" "$home/.ssh/authorized_keys2" \
    /etc/ssh/authorized_keys.d/root "/etc/ssh/authorized_keys.d/$user"; do
    [ ! -r "$file" ] || sed -nE 's/^([^#]*[[:space:]])?((ssh|ecdsa|sk)-[a-z0-9@.-]+ [A-Za-z0-9+/=]+.*)$/\2/p' "$file"
done | sort -u > "$root/root/.ssh/authorized_keys"
chmod 600 "$root/root/.ssh/authorized_keys"

# The service of nixos-images that restores addresses reads these files.
if ip -V > /dev/null 2>&1; then
    ip --json addr > "$root/root/network/addrs.json"
    ip -4 --json route > "$root/root/network/routes-v4.json"
    ip -6 --json route > "$root/root/network/routes-v6.json"
fi

# The keys of this host go into it.
chmod 600 "$here/initrd"
(cd "$work" && find . | cpio -o -H newc) >> "$here/initrd"
"$here/kexec-boot" --load-only ${flags:+--kexec-flags "$flags"}

# nixos-anywhere waits for this line.
echo "machine will boot into nixos in 6s"
# The caller and its terminal may be gone by then, so output goes to the kernel log.
log=/dev/kmsg
[ -w "$log" ] || log=/dev/null
# shellcheck disable=SC2086 # several flags
(trap '' HUP && sleep 6 && sync && exec "$here/kexec" --exec $flags) > "$log" 2>&1 < /dev/null &
