#!/bin/sh
# Boots the system beside this in place of the one that runs here, six seconds from now, and carries over what tells the host from
# others. For nixos-anywhere, by the rules of nix-community/nixos-images: kexec/run, --kexec-extra-flags, and what it says at the end.
set -eu

flags=
while [ $# -gt 0 ]; do
    case $1 in
        --kexec-extra-flags) flags=${2-}; [ $# -lt 2 ] || shift ;;
        *) echo "kexec/run: unknown option $1; the only one is --kexec-extra-flags FLAGS" >&2; exit 1 ;;
    esac
    shift
done

here=$(dirname "$(readlink -f "$0")")
PATH=$here:$PATH
work=$(mktemp -d "$here/carry.XXXXXX")
trap 'rm -rf "$work"' EXIT
root=$work/firn/root # stage 1 copies what is below it
mkdir -p "$root"

# A directory as it is here.
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

# Who may log in here as root, or has become root here, may log in as root there. What stands before a key, such as the command
# with which cloud images keep root out, is not meant for the new system.
user=${SUDO_USER:-${DOAS_USER:-root}}
home=$(sed -n "s|^$user:.*:\\([^:]*\\):[^:]*$|\\1|p" /etc/passwd)
mkdir -p "$root/root/.ssh" "$root/root/network"
chmod 700 "$root/root" "$root/root/.ssh"
for file in /root/.ssh/authorized_keys /root/.ssh/authorized_keys2 "$home/.ssh/authorized_keys" "$home/.ssh/authorized_keys2" \
    /etc/ssh/authorized_keys.d/root "/etc/ssh/authorized_keys.d/$user"; do
    [ ! -r "$file" ] || sed -nE 's/^([^#]*[[:space:]])?((ssh|ecdsa|sk)-[a-z0-9@.-]+ [A-Za-z0-9+/=]+.*)$/\2/p' "$file"
done | sort -u > "$root/root/.ssh/authorized_keys"
chmod 600 "$root/root/.ssh/authorized_keys"

# Where nixos-images' service that restores addresses looks for them.
if ip -V > /dev/null 2>&1; then
    ip --json addr > "$root/root/network/addrs.json"
    ip -4 --json route > "$root/root/network/routes-v4.json"
    ip -6 --json route > "$root/root/network/routes-v6.json"
fi

(cd "$work" && find . | cpio -o -H newc) >> "$here/initrd"
"$here/kexec-boot" --load-only ${flags:+--kexec-flags "$flags"}

# nixos-anywhere looks for these words in what it is told.
echo "machine will boot into nixos in 6s"
# Whoever called may be gone by then, and the terminal with them: the kernel log has the last words.
log=/dev/kmsg
[ -w "$log" ] || log=/dev/null
# shellcheck disable=SC2086 # several flags
(trap '' HUP && sleep 6 && sync && exec "$here/kexec" --exec $flags) > "$log" 2>&1 < /dev/null &
