//! The pseudo file systems that all later steps need: /dev, /proc, /sys, /run.

use crate::boot::console::kmsg;
use crate::boot::kernel::mount::make_directory;
use anyhow::{Context, Result};
use rustix::fs::symlink;
use rustix::io::Errno;
use rustix::mount::UnmountFlags;
use std::ffi::CStr;
use std::fmt;
use sys_mount::{Mount, MountFlags};

/// The arguments of `mount(2)`. Displays as the equivalent mount(8) command.
struct Pseudo {
    kind: &'static str,
    target: &'static str,
    flags: &'static [Flag],
    data: &'static str,
}

/// A flag and its name in mount(8).
type Flag = (&'static str, MountFlags);
const NODEV: Flag = ("nodev", MountFlags::NODEV);
const NOEXEC: Flag = ("noexec", MountFlags::NOEXEC);
const NOSUID: Flag = ("nosuid", MountFlags::NOSUID);
const STRICTATIME: Flag = ("strictatime", MountFlags::STRICTATIME);

/// The mounts of NixOS' own stage 1, with the options of `boot.specialFileSystems` (`nixos/modules/tasks/filesystems.nix`). The
/// system's stage 2 finds them mounted and does not change them.
const TABLE: [Pseudo; 6] = [
    Pseudo { kind: "devtmpfs", target: "/dev", flags: &[NOSUID, STRICTATIME], data: "mode=755,size=5%" },
    // 3 is the group tty of NixOS (nixpkgs, nixos/modules/misc/ids.nix).
    Pseudo { kind: "devpts", target: "/dev/pts", flags: &[NOSUID, NOEXEC], data: "mode=620,ptmxmode=0666,gid=3" },
    Pseudo { kind: "tmpfs", target: "/dev/shm", flags: &[NOSUID, NODEV, STRICTATIME], data: "mode=1777,size=50%" },
    Pseudo { kind: "proc", target: "/proc", flags: &[NOSUID, NOEXEC, NODEV], data: "" },
    Pseudo { kind: "sysfs", target: "/sys", flags: &[NOSUID, NOEXEC, NODEV], data: "" },
    Pseudo { kind: "tmpfs", target: "/run", flags: &[NOSUID, NODEV, STRICTATIME], data: "mode=755,size=25%" },
];

impl fmt::Display for Pseudo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let options: Vec<_> = self.flags.iter().map(|(name, _)| *name).chain(self.data.split_terminator(',')).collect();
        write!(f, "mount -t {0} -o {1} {0} {2}", self.kind, options.join(","), self.target)
    }
}

/// Symlinks to open files, by which shells find them: `exec > >(tee ...)` of NixOS' stage 2 takes `/dev/fd` (nixpkgs,
/// `nixos/modules/system/boot/stage-1-init.sh`).
const LINKS: [(&CStr, &CStr); 4] = [
    (c"/proc/self/fd", c"/dev/fd"),
    (c"/proc/self/fd/0", c"/dev/stdin"),
    (c"/proc/self/fd/1", c"/dev/stdout"),
    (c"/proc/self/fd/2", c"/dev/stderr"),
];

/// Shows that the pseudo file systems are mounted. The running system gets the same mounts.
pub struct Early {
    /// The mount points of [`TABLE`], without those below another mount point.
    mounts: Vec<&'static str>,
}

/// Mounts the pseudo file systems of [`TABLE`] and starts the log, which needs `/dev`.
///
/// # Errors
///
/// A mount that the kernel refuses. Without `/dev/kmsg` the boot goes on without a log.
pub fn prepare() -> Result<Early> {
    let early = mount()?;
    kmsg::start();
    Ok(early)
}

/// Mounts the pseudo file systems of [`TABLE`], and makes [`LINKS`].
///
/// # Errors
///
/// A mount that the kernel refuses.
pub fn mount() -> Result<Early> {
    for entry in &TABLE {
        make_directory(entry.target)?;
        let flags = entry.flags.iter().map(|(_, flag)| *flag).collect();
        let builder = Mount::builder().fstype(entry.kind).flags(flags).data(entry.data);
        match builder.mount(entry.kind, entry.target) {
            Ok(_) => {}
            // The kernel has one devtmpfs, proc and sysfs each; here it is already mounted.
            Err(error) if error.raw_os_error() == Some(Errno::BUSY.raw_os_error()) => {}
            Err(error) => return Err(error).context(entry.to_string()),
        }
    }
    for (target, link) in LINKS {
        // After a failed boot that is tried again they are there.
        symlink(target, link).unwrap_or_default();
    }
    let mounts = TABLE.iter().map(|entry| entry.target).filter(|target| target.matches('/').count() == 1).collect();
    Ok(Early { mounts })
}

impl Early {
    /// The mount points, without those below another mount point. The new root gets copies of these mounts at the same paths. So
    /// programs in the new root can use them before the switch, and the rescue menu still has them in the initramfs if such a program
    /// fails.
    #[must_use]
    pub fn mounts(&self) -> &[&'static str] {
        &self.mounts
    }

    /// Unmounts them from the initramfs. The copies in the new root stay mounted.
    ///
    /// # Errors
    ///
    /// An unmount that the kernel refuses.
    pub fn detach(&self) -> Result<()> {
        for target in &self.mounts {
            rustix::mount::unmount(*target, UnmountFlags::DETACH).with_context(|| format!("umount --lazy {target}"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn mounts_display_as_commands() {
        let commands: Vec<_> = super::TABLE.iter().map(ToString::to_string).collect();
        assert_eq!(
            commands,
            [
                "mount -t devtmpfs -o nosuid,strictatime,mode=755,size=5% devtmpfs /dev",
                "mount -t devpts -o nosuid,noexec,mode=620,ptmxmode=0666,gid=3 devpts /dev/pts",
                "mount -t tmpfs -o nosuid,nodev,strictatime,mode=1777,size=50% tmpfs /dev/shm",
                "mount -t proc -o nosuid,noexec,nodev proc /proc",
                "mount -t sysfs -o nosuid,noexec,nodev sysfs /sys",
                "mount -t tmpfs -o nosuid,nodev,strictatime,mode=755,size=25% tmpfs /run",
            ]
        );
    }
}
