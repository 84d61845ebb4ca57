#!@bash@/bin/bash
# shellcheck disable=SC2239 # the build fills in what stands between two @
#
# PID 1 of the bench's system, whatever stage 1 was before. Marks in the kernel log how far it is, and writes the log and what
# memory there was at its start to the second serial port.

mark() { echo "bench: $*" > /dev/kmsg; }

mark first line
mapfile -t memory < /proc/meminfo
# No /etc is there yet for Nix to find them in.
export PATH=@path@ HOME=/root USER=root
toplevel=@toplevel@

# As NixOS' netboot.nix does it, if stage 1 has not.
if [[ ! -e /nix/var/nix/db/db.sqlite ]]; then
    nix-store --load-db < /nix/store/nix-path-registration || mark load-db failed
    mark database loaded
    nix-env --profile /nix/var/nix/profiles/system --set "$toplevel" || mark profile failed
fi
mark registered

mapfile -t files < @bench@/start
cat "${files[@]}" > /dev/null || mark reading failed
mark started

# The registration is whole: after the marks, since it takes longer than most of what they are about.
nix-store --query --references "$toplevel" > /dev/null && mark valid
{
    dmesg --color=never
    printf 'meminfo %s\n' "${memory[@]}"
} > /dev/ttyS1
exec poweroff
