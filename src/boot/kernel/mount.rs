//! Mounting with the kernel's reasons: fsopen(2) and its relatives (kernel 5.2) say why, mount(2) only says `EINVAL`.

use anyhow::{Context, Result, anyhow};
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

/// A file system to mount; displays as the command that does the same.
pub struct Filesystem<'a> {
    /// As `/proc/filesystems` calls it.
    pub kind: &'a str,
    /// Device, or a name that tells the mount from others.
    pub source: &'a str,
    /// Attributes of the mount. With `MOUNT_ATTR_RDONLY` the file system is read-only, too.
    pub attributes: MountAttrFlags,
    /// Options of this type of file system; one without a value is a flag.
    pub options: &'a [(&'a str, &'a str)],
    /// Options that some kernels lack: left out, with a line in the log, where the kernel refuses them.
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
        for (word, attribute) in ATTRIBUTES {
            if self.attributes.contains(attribute) {
                write!(f, ",{word}")?;
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

    /// Mounts the file system on the directory `target`, made if it is not there.
    ///
    /// # Errors
    ///
    /// What the kernel refuses, in its own words where it has any.
    pub fn mount(&self, target: &Path) -> Result<()> {
        self.detached(target)?.attach(target)
    }

    /// Makes the mount for the directory `target` and attaches it to no directory yet: its source and options are resolved here,
    /// its target where it is attached.
    ///
    /// # Errors
    ///
    /// What the kernel refuses, in its own words where it has any.
    pub fn detached(&self, target: &Path) -> Result<Detached> {
        log::info!("Mounting: {self} {}", target.display());
        self.create().map(Detached).with_context(|| format!("{self} {}", target.display()))
    }

    fn read_only(&self) -> bool {
        self.attributes.contains(MountAttrFlags::MOUNT_ATTR_RDONLY)
    }

    fn create(&self) -> Result<OwnedFd> {
        let context = fsopen(self.kind, FsOpenFlags::FSOPEN_CLOEXEC).map_err(|errno| match errno {
            Errno::NODEV => anyhow!(errno).context(format!(
                "this kernel has no file system {0}: neither built in nor as a module in the ramdisk; build with a kernel \
                 that has {0}",
                self.kind
            )),
            Errno::NOSYS => anyhow!(errno).context("this kernel is too old; firn-init needs Linux 5.6 or newer"),
            _ => anyhow!(errno).context("fsopen"),
        })?;
        let explain = |errno| words(&context, errno);
        fsconfig_set_string(&context, "source", self.source).map_err(explain)?;
        if self.read_only() {
            fsconfig_set_flag(&context, "ro").map_err(explain)?;
        }
        for (key, value) in self.options {
            let result = match *value {
                "" => fsconfig_set_flag(&context, *key),
                value => fsconfig_set_string(&context, *key, value),
            };
            result.map_err(explain).with_context(|| format!("the option {key}={value}"))?;
        }
        for (key, value) in self.optional {
            if let Err(errno) = fsconfig_set_string(&context, *key, *value) {
                log::info!("This kernel does not take {key}={value}, going on without ({:#})", explain(errno));
            }
        }
        fsconfig_create(&context).map_err(explain)?;
        fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, self.attributes).map_err(explain)
    }
}

/// A mount that is attached to no directory yet.
pub struct Detached(OwnedFd);

impl Detached {
    /// A copy of the mount at `path` and of all mounts below it, as `mount --rbind` makes it (`open_tree(2)`, kernel 5.2).
    ///
    /// # Errors
    ///
    /// Those of `open_tree(2)`, with the path.
    pub fn copy_of(path: &str) -> Result<Self> {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
        open_tree(CWD, path, flags).map(Self).with_context(|| format!("copying the mounts at {path}"))
    }

    /// Attaches the mount to the directory `target`, made if it is missing.
    ///
    /// # Errors
    ///
    /// Those of mkdir(2) and `move_mount(2)`, with the path.
    pub fn attach(&self, target: &Path) -> Result<()> {
        make_directory(target)?;
        move_mount(&self.0, "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
            .with_context(|| format!("attaching a mount to {}", target.display()))
    }
}

/// `errno` with what the kernel wrote about it into the file system context: a message on each read, the first letter its
/// level (`man 2 fsopen`).
fn words(context: &OwnedFd, errno: Errno) -> anyhow::Error {
    let mut said = Vec::new();
    let mut message = [0; 1024];
    while let Ok(length) = rustix::io::read(context, &mut message) {
        let text = String::from_utf8_lossy(message.get(..length).unwrap_or_default()).into_owned();
        let text = text.trim();
        said.push(text.get(2..).unwrap_or(text).to_owned());
    }
    match said.as_slice() {
        [] => anyhow!(errno),
        _ => anyhow!(errno).context(format!("the kernel says: {}", said.join("; "))),
    }
}

/// Makes a directory and those above it (mode 0755), if they are not there.
///
/// # Errors
///
/// Those of mkdir(2), with the path.
pub fn make_directory(path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    fs::create_dir_all(path).with_context(|| format!("making the directory {}", path.display()))
}
