#!@bash@/bin/bash
# shellcheck disable=SC2239 # the build fills in what stands between two @
#
# Stage 2: PID 1 of the demo system, once stage 1 has handed over. Does what NixOS's does up to the point where that starts
# systemd; what comes then is a probe or a login shell. It comes with an empty environment and stays PID 1.

export PATH=@path@
toplevel=@toplevel@

say() { echo "stage 2: $*"; }

# Stage 1 hands these over mounted. They are here for a start without it.
mount_missing() {
    mountpoint --quiet "$2" && return
    mkdir -p "$2"
    mount -t "$1" "$1" "$2" -o "$3"
}
mount_missing proc /proc nosuid,noexec,nodev
mount_missing sysfs /sys nosuid,noexec,nodev
mount_missing devtmpfs /dev nosuid,mode=755
mount_missing tmpfs /run nosuid,nodev,mode=755

# From here on only Nix writes to the store: it remounts it in a mount namespace of its own.
chmod 1775 /nix/store
mount --bind /nix/store /nix/store
mount -o remount,bind,ro,nosuid,nodev /nix/store

say "Activating $toplevel"
"$toplevel/activate" || say "Activation failed"
ln -sfn "$toplevel" /run/booted-system

# As the prepare-root of a system that has systemd for its init: that is stage 1's to start.
if [[ ${IN_NIXOS_SYSTEMD_STAGE1-} == true ]]; then
    files=(/proc/$$/fd/*)
    say "Returning, with the environment $(tr '\0' ' ' < /proc/$$/environ)and the open files ${files[*]##*/}"
    exit 0
fi

# The command line's last console= is the main one. The device's real name: /dev/console cannot be a controlling terminal.
read -ra consoles < /sys/class/tty/console/active
tty=${consoles[-1]/%tty0/tty1}
case $tty in
    ttyS*) term=vt220 ;;
    *) term=linux ;;
esac

probe=/run/current-system/sw/bin/firn-probe
if [[ " $(< /proc/cmdline) " == *' probe='* && -x $probe ]]; then
    say "Running the probe"
    PATH=/run/current-system/sw/bin "$probe" || say "The probe failed with status $?"
    exec poweroff
fi

# A serial line does not know the size of the terminal behind it, and programs take 0 by 0 at its word.
[[ $(stty size < "/dev/$tty") != '0 0' ]] || stty rows 24 cols 80 < "/dev/$tty"

cd /root || cd /
while :; do
    printf '\n%s\n%s\n\n' "This is the firn demo system: NixOS-shaped, and all of it in memory." \
        "Try 'nix-store --verify --check-contents'; 'poweroff' ends it." > "/dev/$tty"
    # A session of its own with a terminal to control: without them there is no job control, and Ctrl-C reaches nobody.
    setsid --ctty --wait env -i HOME=/root USER=root SHELL="$BASH" TERM=$term \
        "$BASH" --login < "/dev/$tty" > "/dev/$tty" 2>&1
    sleep 1
done
