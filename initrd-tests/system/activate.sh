#!@bash@/bin/bash
# shellcheck disable=SC2239 # the build fills in what stands between two @
#
# Makes the root file system what the toplevel says it is. Run at every boot, and harmless when run again.
set -eu

export PATH=@path@
toplevel=@toplevel@

mkdir -p /bin /etc /home /usr/bin /var/empty /var/lib /var/log /nix/var/nix/gcroots
install -d -m 0700 /root
install -d -m 1777 /tmp /var/tmp
ln -sfn @bash@/bin/sh /bin/sh
ln -sfn @coreutils@/bin/env /usr/bin/env

# /etc is writable, with a link for each file of the toplevel's.
ln -sfn "$toplevel/etc" /etc/static
for file in /etc/static/*; do
    ln -sfn "$file" "/etc/${file##*/}"
done
# These are for users to change. No password, as on installation media.
[[ -e /etc/passwd ]] || echo "root:x:0:0:root:/root:@bash@/bin/bash" > /etc/passwd
[[ -e /etc/group ]] || echo "root:x:0:" > /etc/group
[[ -e /etc/shadow ]] || (umask 077 && echo "root::1::::::" > /etc/shadow)
cat /etc/hostname > /proc/sys/kernel/hostname

ln -sfn "$toplevel" /run/current-system
ln -sfn /run/current-system /nix/var/nix/gcroots/current-system
ln -sfn /run/booted-system /nix/var/nix/gcroots/booted-system
