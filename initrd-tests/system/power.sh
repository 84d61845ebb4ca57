#!@bash@/bin/bash
# shellcheck disable=SC2239 # the build fills in what stands between two @
#
# poweroff and reboot, by the name it is called with. The root is memory and there is no service to stop, so this asks the
# kernel directly.
case ${0##*/} in
    reboot) order=b ;;
    *) order=o ;;
esac
echo "$order" > /proc/sysrq-trigger
# The kernel switches off in its own time; nothing more is to happen until then.
exec sleep infinity
