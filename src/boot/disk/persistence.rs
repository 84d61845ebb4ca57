//! A root on a disk, which survives a reboot: `boot.persistence=DEVICE` mounts a disk instead of the tmpfs, with the mount options of
//! `boot.persistence.opt=`, as in NixOS' scripted stage 1 (`nixos/modules/system/boot/stage-1-init.sh`).

use crate::boot::kernel::coldplug;
use crate::boot::kernel::modules::Loader;
use crate::boot::kernel::mount::Filesystem;
use crate::formats::cmdline::CommandLine;
use crate::formats::disk::{self, DiskFileSystem};
use anyhow::{Context, Result, bail};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;
use std::fmt;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// The time limit for the device, as in NixOS. The kernel parameter `rootwait=SECONDS` (`init/do_mounts.c`) changes it.
const TIMEOUT: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(100);

/// The tags of devices: the name that mount(8) expects before `=`, and the directory of udev's links by this tag.
const TAGS: [(&str, &str); 4] = [
    ("LABEL", "/dev/disk/by-label/"),
    ("UUID", "/dev/disk/by-uuid/"),
    ("PARTLABEL", "/dev/disk/by-partlabel/"),
    ("PARTUUID", "/dev/disk/by-partuuid/"),
];

/// The tag that every device has: its path.
const PATH: &str = "";

/// The name and the value of a tag.
type Tag = (&'static str, String);

/// A block device of the machine.
#[derive(Debug, PartialEq, Eq)]
struct Device {
    path: String,
    /// The type of its file system, if [`disk::recognize`] knows it.
    kind: Option<&'static str>,
    tags: Vec<Tag>,
}

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
/// The device does not appear, or the kernel refuses the mount. The boot does not fall back to a root in memory, which would lose the
/// state of the machine.
pub fn mount(device: &str, cmdline: &CommandLine, modules: &mut Loader<'_>, target: &Path) -> Result<()> {
    let timeout =
        cmdline.value("rootwait").and_then(|seconds| seconds.parse().ok()).map_or(TIMEOUT, Duration::from_secs);
    let found = wait(device, timeout, modules)
        .with_context(|| format!("waiting for the device {device} of boot.persistence="))?;
    let options = options(cmdline.value("boot.persistence.opt").unwrap_or_default());
    if found.kind.is_none() {
        // The kernel knows more file systems than this program, and these are the modules of the others.
        modules.load_file_systems();
    }
    let mut mount = |kind: &str| {
        modules.load(&format!("fs-{kind}"));
        let mut filesystem = Filesystem {
            kind,
            source: &found.path,
            attributes: options.attributes,
            options: &options.others,
            optional: &[],
        };
        match filesystem.mount(target) {
            // The kernel refuses to mount a read-only disk for writing. mount(8) does the same then.
            Err(error) if matches!(error.downcast_ref(), Some(&(Errno::ROFS | Errno::ACCESS))) => {
                log::info!("{error:#}; mounting it read-only");
                filesystem.attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY;
                filesystem.mount(target)
            }
            other => other,
        }
    };
    if let Some(kind) = found.kind {
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
         system with firn build --available-module",
        kinds.join(" ")
    )
}

/// Waits until a device of this name appears. It loads drivers while it waits: devices on slow buses appear late.
fn wait(name: &str, timeout: Duration, modules: &mut Loader<'_>) -> Result<Device> {
    let (tag, start) = (tag(name), Instant::now());
    let mut is_logged = false;
    loop {
        let mut devices = devices()?;
        if let Some(place) = devices.iter().position(|device| device.has(&tag)) {
            return Ok(devices.swap_remove(place));
        }
        if start.elapsed() >= timeout {
            let present: Vec<_> = devices.iter().map(ToString::to_string).collect();
            bail!(
                "it did not appear in {} s; this machine has {}; name one of these devices, or add the driver of the missing one \
                 with firn build --available-module (nvme, virtio_blk, ahci with sd_mod, …)",
                timeout.as_secs(),
                if present.is_empty() { "no block devices".into() } else { present.join(", ") }
            );
        }
        if !is_logged {
            log::info!("Waiting for the device {name}");
            is_logged = true;
        }
        sleep(PAUSE);
        coldplug::run(modules)?;
    }
}

impl Device {
    fn has(&self, (name, value): &Tag) -> bool {
        self.tags.iter().any(|(tag, tag_value)| {
            // UUIDs are hexadecimal numbers: upper and lower case are the same.
            tag == name
                && if name.ends_with("UUID") { tag_value.eq_ignore_ascii_case(value) } else { tag_value == value }
        })
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)?;
        for (name, value) in self.tags.iter().filter(|(name, _)| *name != PATH) {
            write!(f, " {name}={value}")?;
        }
        Ok(())
    }
}

/// The tag in the name of a device, such as `LABEL=state` or `/dev/vda1`.
fn tag(device: &str) -> Tag {
    let tagged = TAGS.iter().find_map(|(name, directory)| {
        let by_name = device.strip_prefix(name).and_then(|rest| rest.strip_prefix('='));
        Some((*name, by_name.map(Into::into).or_else(|| device.strip_prefix(directory).map(unescape))?))
    });
    tagged.unwrap_or_else(|| (PATH, device.into()))
}

/// Decodes `\x20` and so on: udev encodes characters in file names in this way.
fn unescape(name: &str) -> String {
    let mut parts = name.split("\\x");
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        match part.split_at_checked(2).map(|(digits, rest)| (u8::from_str_radix(digits, 16), rest)) {
            Some((Ok(byte), rest)) => bytes.extend([&[byte], rest.as_bytes()].concat()),
            _ => bytes.extend([b"\\x", part.as_bytes()].concat()),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The block devices with readable contents.
fn devices() -> Result<Vec<Device>> {
    let entries = fs::read_dir("/sys/class/block").context("reading /sys/class/block")?;
    let mut names: Vec<_> = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    // sysfs has no fixed order. If two devices have the same label, every boot has to take the same one.
    names.sort();
    let mut devices = Vec::new();
    for name in names {
        // A device that has just disappeared has no such file.
        let uevent = fs::read_to_string(format!("/sys/class/block/{name}/uevent")).unwrap_or_default();
        let Some(name) = variable(&uevent, "DEVNAME") else { continue };
        let path = format!("/dev/{name}");
        let mut start = Vec::new();
        // A drive without a medium cannot be opened.
        let read = File::open(&path).and_then(|file| file.take(disk::LENGTH).read_to_end(&mut start));
        if read.is_ok_and(|length| length > 0) {
            devices.push(describe(path, &uevent, disk::recognize(&start)));
        }
    }
    Ok(devices)
}

/// Describes a device: tags from the kernel (`uevent` in sysfs; it has `PARTUUID` since Linux 6.13) and from its file system.
fn describe(path: String, uevent: &str, file_system: Option<DiskFileSystem>) -> Device {
    let mut tags = vec![(PATH, path.clone())];
    tags.extend(variable(uevent, "PARTNAME").map(|name| ("PARTLABEL", name.into())));
    tags.extend(variable(uevent, "PARTUUID").map(|uuid| ("PARTUUID", uuid.into())));
    let kind = file_system.as_ref().map(|file_system| file_system.kind);
    if let Some(DiskFileSystem { uuid, label, .. }) = file_system {
        tags.extend([("LABEL", label), ("UUID", uuid)].into_iter().filter(|(_, value)| !value.is_empty()));
    }
    Device { path, kind, tags }
}

fn variable<'a>(uevent: &'a str, name: &str) -> Option<&'a str> {
    uevent.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
}

/// The file systems of `/proc/filesystems` that need a block device (`man 5 proc_filesystems`).
fn on_devices(filesystems: &str) -> impl Iterator<Item = &str> {
    filesystems.lines().filter_map(|line| line.strip_prefix('\t'))
}

/// Reads mount options in the form of fstab (`man 8 mount`). Options for mount(8) and systemd themselves are dropped.
fn options(text: &str) -> MountOptions<'_> {
    let mut options = MountOptions { attributes: MountAttrFlags::empty(), others: Vec::new() };
    for option in text.split(',') {
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
                options.others.push(option.split_once('=').unwrap_or((option, "")));
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
    fn names_of_devices() {
        for (name, expected) in [
            ("/dev/vda1", (PATH, "/dev/vda1")),
            ("LABEL=state", ("LABEL", "state")),
            ("LABEL=a=b", ("LABEL", "a=b")),
            ("UUID=12-34", ("UUID", "12-34")),
            ("PARTLABEL=a b", ("PARTLABEL", "a b")),
            ("PARTUUID=12-34", ("PARTUUID", "12-34")),
            ("/dev/disk/by-label/a\\x20b\\xc3\\xa4", ("LABEL", "a bä")),
            ("/dev/disk/by-label/a\\xzz\\x2", ("LABEL", "a\\xzz\\x2")),
            ("/dev/disk/by-uuid/12-34", ("UUID", "12-34")),
            ("/dev/disk/by-partuuid/12-34", ("PARTUUID", "12-34")),
            ("/dev/disk/by-id/x", (PATH, "/dev/disk/by-id/x")),
            ("LABELS=x", (PATH, "LABELS=x")),
        ] {
            assert_eq!(tag(name), (expected.0, expected.1.into()), "{name}");
        }
    }

    #[test]
    fn devices_are_known_by_what_they_have() {
        let uevent =
            "MAJOR=254\nMINOR=1\nDEVNAME=vda1\nDEVTYPE=partition\nPARTN=1\nPARTNAME=my state\nPARTUUID=ab-01\n";
        let file_system = DiskFileSystem { kind: "ext4", uuid: "12ab-34".into(), label: String::new() };
        let device = describe("/dev/vda1".into(), uevent, Some(file_system));
        assert_eq!(device.kind, Some("ext4"));
        assert_eq!(device.to_string(), "/dev/vda1 PARTLABEL=my state PARTUUID=ab-01 UUID=12ab-34");
        for (name, expected) in [
            ("/dev/vda1", true),
            ("/dev/vda", false),
            ("UUID=12AB-34", true),
            ("UUID=ab-01", false),
            ("PARTUUID=AB-01", true),
            ("PARTLABEL=my state", true),
            ("PARTLABEL=My State", false),
            ("LABEL=", false),
        ] {
            assert_eq!(device.has(&tag(name)), expected, "{name}");
        }
        assert_eq!(describe("/dev/sr0".into(), "DEVNAME=sr0\n", None).to_string(), "/dev/sr0");
    }

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
        ] {
            assert_eq!(options(text), expected, "{text}");
        }
    }

    #[test]
    fn file_systems_that_are_on_devices() {
        let text = "nodev\tsysfs\nnodev\ttmpfs\n\text4\n\tsquashfs\n";
        assert_eq!(on_devices(text).collect::<Vec<_>>(), ["ext4", "squashfs"]);
    }
}
