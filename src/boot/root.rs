//! The root of the running system: a tmpfs, or a disk that keeps it, put together below [`PATH`] and made `/` at the end.

use crate::boot::disk::persistence;
use crate::boot::early::Early;
use crate::boot::kernel::modules::Loader;
use crate::boot::kernel::mount::{Detached, Filesystem};
use crate::boot::parameters::options::Limits;
use crate::formats::cmdline::CommandLine;
use anyhow::{Context, Result};
use rustix::fd::OwnedFd;
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use std::path::Path;

/// The same directory as in the scripted stage 1 of NixOS.
const PATH: &str = "/mnt-root";

/// The new root, with the pseudo file systems in place and no store yet.
pub struct Root {
    directory: OwnedFd,
}

/// Mounts the tmpfs, or the disk that the command line names, and makes the pseudo file systems visible in it. With `has_store` the
/// root of an earlier attempt is there with its store and is taken again; without, an incomplete one is taken away.
///
/// # Errors
///
/// A disk that is missing, or a mount that the kernel refuses.
pub fn create(
    early: &Early,
    cmdline: &CommandLine,
    limits: &Limits,
    modules: &mut Loader<'_>,
    has_store: bool,
) -> Result<Root> {
    if has_store {
        log::info!("Going on with the root of the attempt before");
        return Root::open(PATH);
    }
    let path = Path::new(PATH);
    match unmount(path, UnmountFlags::DETACH) {
        Ok(()) => log::info!("Taking away the root of the attempt before"),
        Err(Errno::INVAL | Errno::NOENT) => {} // this is the first
        Err(errno) => return Err(errno).context("taking away the root of the attempt before"),
    }
    match persistence::device(cmdline) {
        Some(device) => persistence::mount(device, cmdline, modules, path)?,
        None => Filesystem::tmpfs(&limits.options()).mount(path)?,
    }
    let root = Root::open(PATH)?;
    for target in early.mounts() {
        let mount = Detached::copy_of(target)?;
        root.inside(|| mount.attach(Path::new(target)))
            .with_context(|| format!("mount --rbind {target} in the new root"))?;
    }
    Ok(root)
}

impl Root {
    /// The root that is mounted on a directory.
    ///
    /// # Errors
    ///
    /// Those of open(2), with the path.
    pub fn open(path: &str) -> Result<Self> {
        open_directory(path).map(|directory| Self { directory })
    }

    /// The open directory.
    #[must_use]
    pub fn directory(&self) -> &OwnedFd {
        &self.directory
    }

    /// Runs `run` with the new root as `/`, the one way to resolve a path of the running system before the switch. What it opens,
    /// mounts or starts sees paths as they are after the switch: no symlink of the root leads into the initramfs.
    ///
    /// # Errors
    ///
    /// Those of `run`, and of fchdir(2) and chroot(2) on the way there and back.
    pub fn inside<T>(&self, run: impl FnOnce() -> Result<T>) -> Result<T> {
        let initramfs = open_directory("/")?;
        enter(&self.directory)?;
        let result = run();
        enter(&initramfs)?;
        result
    }
}

/// Makes an open directory the root and the working directory of this process.
///
/// # Errors
///
/// Those of fchdir(2) and chroot(2).
pub fn enter(directory: &OwnedFd) -> Result<()> {
    rustix::process::fchdir(directory).context("fchdir")?;
    rustix::process::chroot(".").context("chroot")
}

/// Opens a directory.
///
/// # Errors
///
/// Those of open(2), with the path.
pub fn open_directory(path: &str) -> Result<OwnedFd> {
    openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .with_context(|| format!("opening the directory {path}"))
}
