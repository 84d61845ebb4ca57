//! Mounts with the kernel's own reason for an error: fsopen(2) and fsconfig(2) (Linux 5.2) report it, while mount(2) only returns
//! `EINVAL`.

use crate::boot::kernel::left_out;
use anyhow::{Context, Result, anyhow, ensure};
use rustix::fd::OwnedFd;
use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};
use std::fmt;
use std::fs;
use std::path::Path;

/// The maximum length of the value of a mount option, bytes (`fsconfig`, fs/fsopen.c).
pub const LONGEST_VALUE: usize = 255;

/// A file system to mount. Displays as the equivalent mount(8) command, without the target.
pub struct Filesystem<'a> {
    /// Its type, as in `/proc/filesystems`.
    pub kind: &'a str,
    /// The device, or a name for a file system without one.
    pub source: &'a str,
    /// Attributes of the mount. `MOUNT_ATTR_RDONLY` makes the file system read-only, too.
    pub attributes: MountAttrFlags,
    /// Options of the file system, name and value. An option with an empty value is a flag.
    pub options: &'a [(&'a str, &'a str)],
    /// Options that some kernels lack. If the kernel refuses one, it is dropped with a line in the log.
    pub optional: &'a [(&'static str, &'a str)],
}

/// Attributes and their names in mount(8).
const ATTRIBUTES: [(&str, MountAttrFlags); 6] = [
    ("nosuid", MountAttrFlags::MOUNT_ATTR_NOSUID),
    ("nodev", MountAttrFlags::MOUNT_ATTR_NODEV),
    ("noexec", MountAttrFlags::MOUNT_ATTR_NOEXEC),
    ("noatime", MountAttrFlags::MOUNT_ATTR_NOATIME),
    ("strictatime", MountAttrFlags::MOUNT_ATTR_STRICTATIME),
    ("nodiratime", MountAttrFlags::MOUNT_ATTR_NODIRATIME),
];

impl fmt::Display for Filesystem<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mount -t {} -o {}", self.kind, if self.read_only() { "ro" } else { "rw" })?;
        for (name, attribute) in ATTRIBUTES {
            if self.attributes.contains(attribute) {
                write!(f, ",{name}")?;
            }
        }
        for (key, value) in self.options {
            write!(f, ",{key}{}{value}", if value.is_empty() { "" } else { "=" })?;
        }
        write!(f, " {}", self.source)
    }
}

impl<'a> Filesystem<'a> {
    /// A writable tmpfs.
    #[must_use]
    pub fn tmpfs(options: &'a [(&'a str, &'a str)]) -> Self {
        Self { kind: "tmpfs", source: "tmpfs", attributes: MountAttrFlags::empty(), options, optional: &[] }
    }

    /// An overlay with these options.
    #[must_use]
    pub fn overlay(options: &'a [(&'a str, &'a str)]) -> Self {
        Self { kind: "overlay", source: "overlay", attributes: MountAttrFlags::empty(), options, optional: &[] }
    }

    /// Mounts the file system on the directory `target`, which is made if it is missing.
    ///
    /// # Errors
    ///
    /// The kernel refuses the mount. The error includes the message of the kernel, where the kernel has a message.
    pub fn mount(&self, target: &Path) -> Result<()> {
        self.detached(target)?.attach(target)
    }

    /// Makes the mount without attaching it to a directory; `target` is only for messages. Paths in the source and the options are
    /// resolved here, the path of the target in [`Detached::attach`].
    ///
    /// # Errors
    ///
    /// The kernel refuses the mount. The error includes the message of the kernel, where the kernel has a message.
    pub fn detached(&self, target: &Path) -> Result<Detached> {
        log::info!("Mounting: {self} {}", target.display());
        self.create().map(Detached).with_context(|| format!("{self} {}", target.display()))
    }

    fn read_only(&self) -> bool {
        self.attributes.contains(MountAttrFlags::MOUNT_ATTR_RDONLY)
    }

    fn create(&self) -> Result<OwnedFd> {
        let context = fsopen(self.kind, FsOpenFlags::FSOPEN_CLOEXEC).map_err(|errno| match errno {
            Errno::NODEV => anyhow!(errno).context(left_out::reason(&format!("file system {}", self.kind), self.kind)),
            Errno::NOSYS => anyhow!(errno).context("this kernel is too old; firn-init needs Linux 5.6 or newer"),
            _ => anyhow!(errno).context("fsopen"),
        })?;
        let explain = |errno| with_kernel_messages(&context, errno);
        fsconfig_set_string(&context, "source", self.source).map_err(explain)?;
        if self.read_only() {
            fsconfig_set_flag(&context, "ro").map_err(explain)?;
        }
        for (key, value) in self.options {
            ensure!(
                value.len() <= LONGEST_VALUE,
                "the value of the mount option {key} has {} bytes, and the kernel takes {LONGEST_VALUE}; shorten {value}",
                value.len()
            );
            let result = match *value {
                "" => fsconfig_set_flag(&context, *key),
                value => fsconfig_set_string(&context, *key, value),
            };
            result.map_err(explain).with_context(|| format!("setting the mount option {key}={value}"))?;
        }
        for (key, value) in self.optional {
            if let Err(errno) = fsconfig_set_string(&context, *key, *value) {
                log::info!(
                    "This kernel lacks the mount option {key}={value}; mounting without it ({:#})",
                    explain(errno)
                );
            }
        }
        fsconfig_create(&context).map_err(explain)?;
        fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, self.attributes).map_err(explain)
    }
}

/// A mount that is attached to no directory yet.
pub struct Detached(OwnedFd);

impl Detached {
    /// A copy of the mount at `path` and of all mounts below it, as with `mount --rbind` (`open_tree(2)`, Linux 5.2).
    ///
    /// # Errors
    ///
    /// An error of `open_tree(2)`, with the path.
    pub fn copy_of(path: &str) -> Result<Self> {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
        open_tree(CWD, path, flags).map(Self).with_context(|| format!("copying the mounts at {path}"))
    }

    /// Attaches the mount to the directory `target`, which is made if it is missing.
    ///
    /// # Errors
    ///
    /// An error of mkdir(2) or `move_mount(2)`, with the path.
    pub fn attach(&self, target: &Path) -> Result<()> {
        make_directory(target)?;
        move_mount(&self.0, "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
            .with_context(|| format!("attaching the mount to {}", target.display()))
    }
}

/// Adds the messages in the file system context to `errno`. Each read returns one message, which begins with a letter for its level
/// (`man 2 fsopen`).
fn with_kernel_messages(context: &OwnedFd, errno: Errno) -> anyhow::Error {
    let mut messages = Vec::new();
    let mut message = [0; 1024];
    while let Ok(length) = rustix::io::read(context, &mut message) {
        let text = String::from_utf8_lossy(message.get(..length).unwrap_or_default()).into_owned();
        let text = text.trim();
        messages.push(text.get(2..).unwrap_or(text).to_owned());
    }
    match messages.as_slice() {
        [] => anyhow!(errno),
        _ => anyhow!(errno).context(format!("the kernel says: {}", messages.join("; "))),
    }
}

/// Makes a directory and its parents (mode 0755), unless they exist.
///
/// # Errors
///
/// An error of mkdir(2), with the path.
pub fn make_directory(path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    fs::create_dir_all(path).with_context(|| format!("making the directory {}", path.display()))
}
