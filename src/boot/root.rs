//! The root of the running system: a tmpfs, or a disk that is to keep it, put together below [`PATH`] and made `/` at the end.

use crate::boot::disk::persistence;
use crate::boot::early::Early;
use crate::boot::kernel::modules::Loader;
use crate::boot::kernel::mount::Filesystem;
use crate::boot::words::options::Limits;
use crate::formats::cmdline::Words;
use anyhow::{Context, Result};
use rustix::fd::OwnedFd;
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use std::path::{Path, PathBuf};

/// Where the scripted stage 1 of NixOS has it, too.
const PATH: &str = "/mnt-root";

/// The new root, with the pseudo file systems in place and no store yet.
pub struct Root {
    path: &'static Path,
    /// The open directory.
    pub directory: OwnedFd,
}

/// Mounts the tmpfs, or what the command line has in its place, and makes the pseudo file systems visible in it.
///
/// # Errors
///
/// A disk that is not there, or a mount that the kernel refuses.
pub fn create(early: &Early, words: &Words, limits: &Limits, modules: &mut Loader<'_>) -> Result<Root> {
    let path = Path::new(PATH);
    match unmount(path, UnmountFlags::DETACH) {
        Ok(()) => log::info!("Taking away the root of the attempt before"),
        Err(Errno::INVAL | Errno::NOENT) => {} // this is the first
        Err(errno) => return Err(errno).context("taking away the root of the attempt before"),
    }
    match persistence::device(words) {
        Some(device) => persistence::mount(device, words, modules, path)?,
        None => Filesystem::tmpfs(&limits.options()).mount(path)?,
    }
    early.bind_below(path)?;
    Ok(Root { path, directory: open_directory(PATH)? })
}

impl Root {
    /// Where `path` of the running system lies during the boot.
    #[must_use]
    pub fn at(&self, path: &str) -> PathBuf {
        self.path.join(path.trim_start_matches('/'))
    }

    /// The other way round: the path after the switch of what lies at `path` now.
    #[must_use]
    pub fn after_switch(&self, path: &Path) -> Option<PathBuf> {
        path.strip_prefix(self.path).ok().map(|path| Path::new("/").join(path))
    }

    /// Runs `run` with the new root as `/`. What it mounts or starts sees paths as they will be after the switch.
    ///
    /// # Errors
    ///
    /// Those of `run`, and of getting there and back.
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

/// # Errors
///
/// Those of open(2), with the path.
pub fn open_directory(path: &str) -> Result<OwnedFd> {
    openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .with_context(|| format!("opening the directory {path}"))
}
