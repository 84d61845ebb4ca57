//! The pseudo file systems that everything else stands on.

use crate::boot::console::kmsg;
use crate::boot::kernel::mount::make_directory;
use anyhow::{Context, Result};
use rustix::io::Errno;
use rustix::mount::UnmountFlags;
use std::fmt;
use sys_mount::{Mount, MountFlags};

/// A mount as `mount(2)` takes it; displays as the command that does the same.
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

/// What NixOS mounts in stage 1, with the options of its `boot.specialFileSystems` (`nixos/modules/tasks/filesystems.nix`):
/// the system's own stage 2 finds them mounted and leaves them as they are.
const TABLE: [Pseudo; 6] = [
    Pseudo { kind: "devtmpfs", target: "/dev", flags: &[NOSUID, STRICTATIME], data: "mode=755,size=5%" },
    // 3 is the group tty of NixOS (misc/ids.nix)
    Pseudo { kind: "devpts", target: "/dev/pts", flags: &[NOSUID, NOEXEC], data: "mode=620,ptmxmode=0666,gid=3" },
    Pseudo { kind: "tmpfs", target: "/dev/shm", flags: &[NOSUID, NODEV, STRICTATIME], data: "mode=1777,size=50%" },
    Pseudo { kind: "proc", target: "/proc", flags: &[NOSUID, NOEXEC, NODEV], data: "" },
    Pseudo { kind: "sysfs", target: "/sys", flags: &[NOSUID, NOEXEC, NODEV], data: "" },
    Pseudo { kind: "tmpfs", target: "/run", flags: &[NOSUID, NODEV, STRICTATIME], data: "mode=755,size=25%" },
];

impl fmt::Display for Pseudo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<_> = self.flags.iter().map(|(word, _)| *word).chain(self.data.split_terminator(',')).collect();
        write!(f, "mount -t {0} -o {1} {0} {2}", self.kind, words.join(","), self.target)
    }
}

/// What the initramfs has from now on, and the running system is to have.
pub struct Early {
    /// Where the mounts of the table are, but for those that lie below another one.
    mounts: Vec<&'static str>,
}

/// Mounts the table and starts the log, which needs `/dev`.
///
/// # Errors
///
/// A mount that the kernel refuses. A kernel without `/dev/kmsg` is no error: the boot goes on without a log.
pub fn prepare() -> Result<Early> {
    let early = mount()?;
    kmsg::start();
    Ok(early)
}

/// Mounts the table.
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
            // There is one devtmpfs, proc or sysfs, and who started us had it mounted here already.
            Err(error) if error.raw_os_error() == Some(Errno::BUSY.raw_os_error()) => {}
            Err(error) => return Err(error).context(entry.to_string()),
        }
    }
    let mounts = TABLE.iter().map(|entry| entry.target).filter(|target| target.matches('/').count() == 1).collect();
    Ok(Early { mounts })
}

impl Early {
    /// The mount points, without those below another one. The new root has copies of the mounts at the same paths, and they are not
    /// moved at the end: programs of the new root find them before the switch, and rescue still finds them in the initramfs when one
    /// of those programs fails.
    #[must_use]
    pub fn mounts(&self) -> &[&'static str] {
        &self.mounts
    }

    /// Takes the mounts away from the initramfs; those below the new root stay.
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
