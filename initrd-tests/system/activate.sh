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

# /etc is writable, with a link for each link of the toplevel's etc, or a copy if there is a file with its mode. As NixOS' setup-etc.pl:
# rename(2) replaces a file, it leaves a directory with files of others, and it goes on after an error.
set_up_etc() { # the directory below etc, such as /nix
    local from name target
    for from in "/etc/static$1"/*; do
        name=${from#/etc/static} target=/etc${from#/etc/static}
        if [[ ! -L $from ]]; then
            [[ ! -d $from ]] || { mkdir -p "$target" && set_up_etc "$name"; }
        elif [[ ! -e $from.mode && ! -e $target && ! -L $target ]]; then
            ln -s "$from" "$target"
        else
            ! is_static "$target" || [[ ! -d $target ]] || rm -r "$target"
            if [[ -e $from.mode ]]; then install -m "$(< "$from.mode")" "$from" "$target.tmp"; else ln -sfn "$from" "$target.tmp"; fi
            mv -fT "$target.tmp" "$target" || { rm "$target.tmp"; echo "could not create symlink $target"; }
        fi
    done
}

# Whether a path is a link of activation, or a directory of nothing else.
is_static() {
    local entry
    [[ ! -L $1 ]] || { [[ $(readlink "$1") == /etc/static* ]]; return; }
    [[ -d $1 ]] || return
    for entry in "$1"/*; do is_static "$entry" || return; done
}

# Removes the links of an earlier system.
remove_obsolete() {
    local link
    for link in /etc/**; do
        if [[ -L $link && ! -L /etc/static${link#/etc} && $(readlink "$link") == /etc/static* ]]; then rm "$link"; fi
    done
}

shopt -s dotglob globstar nullglob
ln -sfn "$toplevel/etc" /etc/static
remove_obsolete
set_up_etc ""
shopt -u dotglob globstar nullglob

# These are for users to change. No password, as on installation media.
[[ -e /etc/passwd ]] || echo "root:x:0:0:root:/root:@bash@/bin/bash" > /etc/passwd
[[ -e /etc/group ]] || echo "root:x:0:" > /etc/group
[[ -e /etc/shadow ]] || (umask 077 && echo "root::1::::::" > /etc/shadow)
cat /etc/hostname > /proc/sys/kernel/hostname

ln -sfn "$toplevel" /run/current-system
ln -sfn /run/current-system /nix/var/nix/gcroots/current-system
ln -sfn /run/booted-system /nix/var/nix/gcroots/booted-system
