//! A root on a disk, which survives a reboot: `boot.persistence=DEVICE` mounts a disk instead of the tmpfs, with the mount options of
//! `boot.persistence.opt=`, as in NixOS' scripted stage 1 (`nixos/modules/system/boot/stage-1-init.sh`).

use crate::boot::disk::wait;
use crate::boot::kernel::child;
use crate::boot::kernel::left_out;
use crate::boot::kernel::modules::Loader;
use crate::boot::kernel::mount::Filesystem;
use crate::formats::cmdline::CommandLine;
use anyhow::{Context, Result, bail};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// The time limit for the device, as in NixOS. The kernel parameter `rootwait=SECONDS` (`init/do_mounts.c`) changes it.
const TIMEOUT: Duration = Duration::from_secs(20);

/// The time limit for the mount, which may replay a journal: that of systemd (`DefaultTimeoutStartSec`, `man 5 systemd-system.conf`).
const MOUNT_TIMEOUT: Duration = Duration::from_secs(90);

/// The options for a file system that was in use when its machine lost its power, on a disk that cannot be written: its journal is not
/// replayed (`man 5 ext4`, `xfs` and `btrfs`; Documentation/filesystems/f2fs.rst).
const WITHOUT_REPLAY: [(&str, (&str, &str)); 5] = [
    ("btrfs", ("rescue", "nologreplay")),
    ("ext3", ("noload", "")),
    ("ext4", ("noload", "")),
    ("f2fs", ("norecovery", "")),
    ("xfs", ("norecovery", "")),
];

/// The reasons for `ENOENT` from a mount of btrfs, with the next step.
const NO_SUCH_PART: &str = "the btrfs has no subvolume of the name in boot.persistence.opt=subvol=…, or it has several devices: name each \
                            of them there, as device=/dev/vda,device=/dev/vdb";

/// Mount options, separated into attributes of the mount and options of the file system.
#[derive(Debug, PartialEq, Eq)]
struct MountOptions<'a> {
    attributes: MountAttrFlags,
    /// Options for fsconfig(2), name and value; a flag has an empty value.
    others: Vec<(&'a str, &'a str)>,
}

/// The device that the command line names.
pub fn device(cmdline: &CommandLine) -> Option<&str> {
    cmdline.value("boot.persistence").filter(|device| !device.is_empty())
}

/// Waits for a device and mounts it on the directory `target`.
///
/// # Errors
///
/// The device does not appear or does not answer, it is a member of something else, or the kernel refuses the mount. The boot does not
/// fall back to a root in memory, which would lose the state of the machine.
pub fn mount(device: &str, cmdline: &CommandLine, modules: &mut Loader<'_>, target: &Path) -> Result<()> {
    let found = wait::find(device, timeout(cmdline), modules)
        .with_context(|| format!("waiting for the device {device} of boot.persistence="))?;
    let options = options(cmdline.value("boot.persistence.opt").unwrap_or_default());
    if found.kind.is_none() {
        // The kernel knows more file systems than this program, and these are the modules of the others.
        modules.load_file_systems();
    }
    let end = Instant::now() + MOUNT_TIMEOUT;
    let mut mount = |kind: &str| {
        modules.load(&format!("fs-{kind}"));
        let mut without_replay = options.others.clone();
        without_replay.extend(WITHOUT_REPLAY.iter().filter(|(of, _)| *of == kind).map(|(_, option)| *option));
        let mount = |attributes, others: &[(&str, &str)]| {
            Filesystem { kind, source: &found.path, attributes, options: others, optional: &[] }.mount(target)
        };
        child::run(&format!("mounting {}", found.path), end, &|| {
            let mut attributes = options.attributes;
            let mut mounted = mount(attributes, &options.others);
            // The kernel refuses to mount a read-only disk for writing, where mount(8) does the same, and one with a journal to replay.
            for (others, effect) in [
                (&options.others, "mounting it read-only"),
                (&without_replay, "mounting it without the latest changes, which are in its journal only"),
            ] {
                let Err(error) = mounted else { break };
                match error.downcast_ref() {
                    Some(&(Errno::ROFS | Errno::ACCESS)) => {}
                    // That is how btrfs refuses to replay its log.
                    Some(&Errno::IO) if attributes.contains(MountAttrFlags::MOUNT_ATTR_RDONLY) => {}
                    Some(&Errno::NOENT) if kind == "btrfs" => return Err(error.context(NO_SUCH_PART)),
                    _ => return Err(error),
                }
                log::info!("{error:#}; {effect}");
                attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY;
                mounted = mount(attributes, others);
            }
            mounted
        })
    };
    if let Some(kind) = &found.kind {
        return mount(kind).with_context(|| format!("mounting {found} as the root, because of boot.persistence="));
    }
    let text = fs::read_to_string("/proc/filesystems").context("reading /proc/filesystems")?;
    let kinds: Vec<_> = on_devices(&text).collect();
    let mounted = |kind: &&str| mount(kind).inspect_err(|error| log::info!("{error:#}")).is_ok();
    if kinds.iter().any(mounted) {
        return Ok(());
    }
    bail!(
        "{found} has no file system that this kernel knows ({}); make a file system on it, or add the module for its file \
         system with firn build --available-module{}",
        kinds.join(" "),
        left_out::hint()
    )
}

/// The time limit for the device. `rootwait` without a value means for ever, as for the kernel; the last one counts.
fn timeout(cmdline: &CommandLine) -> Duration {
    let limits = cmdline.iter().filter(|(key, _)| *key == "rootwait").map(|(_, value)| match value {
        None => Some(Duration::MAX),
        Some(seconds) => seconds.parse().ok().map(Duration::from_secs),
    });
    limits.flatten().last().unwrap_or(TIMEOUT)
}

/// The file systems of `/proc/filesystems` that need a block device (`man 5 proc_filesystems`).
fn on_devices(filesystems: &str) -> impl Iterator<Item = &str> {
    filesystems.lines().filter_map(|line| line.strip_prefix('\t'))
}

/// Reads mount options in the form of fstab (`man 8 mount`). Options for mount(8) and systemd themselves are dropped. A comma in double
/// quotes belongs to a value.
fn options(text: &str) -> MountOptions<'_> {
    let mut options = MountOptions { attributes: MountAttrFlags::empty(), others: Vec::new() };
    let mut quoted = false;
    let ends = |character| {
        quoted ^= character == '"';
        character == ',' && !quoted
    };
    for option in text.split(ends) {
        options.attributes |= match option {
            "ro" => MountAttrFlags::MOUNT_ATTR_RDONLY,
            "nosuid" => MountAttrFlags::MOUNT_ATTR_NOSUID,
            "nodev" => MountAttrFlags::MOUNT_ATTR_NODEV,
            "noexec" => MountAttrFlags::MOUNT_ATTR_NOEXEC,
            "noatime" => MountAttrFlags::MOUNT_ATTR_NOATIME,
            "strictatime" => MountAttrFlags::MOUNT_ATTR_STRICTATIME,
            "nodiratime" => MountAttrFlags::MOUNT_ATTR_NODIRATIME,
            "" | "defaults" | "rw" | "relatime" | "auto" | "noauto" | "nofail" | "_netdev" => continue,
            option if option.starts_with("x-") => continue,
            option => {
                let (name, value) = option.split_once('=').unwrap_or((option, ""));
                options.others.push((name, value.trim_matches('"')));
                continue;
            }
        };
    }
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_options() {
        let none = || MountOptions { attributes: MountAttrFlags::empty(), others: Vec::new() };
        let attributes =
            MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NOATIME | MountAttrFlags::MOUNT_ATTR_NODEV;
        for (text, expected) in [
            ("", none()),
            ("defaults,rw,x-initrd.mount,nofail", none()),
            (
                "ro,noatime,nodev,subvol=@/root,discard,errors=remount-ro",
                MountOptions {
                    attributes,
                    others: vec![("subvol", "@/root"), ("discard", ""), ("errors", "remount-ro")],
                },
            ),
            (
                r#"subvol="my, state",context=a"#,
                MountOptions { others: vec![("subvol", "my, state"), ("context", "a")], ..none() },
            ),
        ] {
            assert_eq!(options(text), expected, "{text}");
        }
    }

    #[test]
    fn file_systems_that_are_on_devices() {
        let text = "nodev\tsysfs\nnodev\ttmpfs\n\text4\n\tsquashfs\n";
        assert_eq!(on_devices(text).collect::<Vec<_>>(), ["ext4", "squashfs"]);
    }

    #[test]
    fn time_limits() {
        for (line, expected) in [
            ("", TIMEOUT),
            ("rootwait=7", Duration::from_secs(7)),
            ("rootwait=0", Duration::ZERO),
            ("rootwait", Duration::MAX),
            ("rootwait rootwait=3", Duration::from_secs(3)),
            ("rootwait=3 rootwait=-1", Duration::from_secs(3)),
        ] {
            assert_eq!(timeout(&CommandLine::parse(line.as_bytes())), expected, "{line}");
        }
    }
}
