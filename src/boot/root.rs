//! The root of the running system: a tmpfs, or a disk. It is mounted on [`PATH`] and becomes `/` in the last step.

use crate::boot::disk::space::Writable;
use crate::boot::disk::{owner, persistence, space};
use crate::boot::early::Early;
use crate::boot::kernel::modules::Loader;
use crate::boot::kernel::mount::{Detached, Filesystem};
use crate::boot::mounted::Mounted;
use crate::boot::parameters::options::Options;
use crate::formats::cmdline::CommandLine;
use anyhow::{Context, Result};
use rustix::fd::OwnedFd;
use rustix::fs::{CWD, FsWord, Mode, OFlags, openat, statfs};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Mutex;

/// The mount point of the new root, as in NixOS' scripted stage 1.
const PATH: &str = "/mnt-root";

/// The type of a tmpfs in statfs(2) (include/uapi/linux/magic.h).
const TMPFS: FsWord = 0x0102_1994;

/// The root of the initramfs, while this process is inside of the new root.
static OUTSIDE: Mutex<Option<OwnedFd>> = Mutex::new(None);

/// The new root with the pseudo file systems, without the store.
pub struct Root {
    directory: OwnedFd,
}

/// Mounts the tmpfs, or the disk that the command line names, and attaches copies of the pseudo file systems. If it is `mounted`
/// with its complete store by an earlier attempt and still there, it is used again. An incomplete root of an earlier attempt is unmounted.
///
/// # Errors
///
/// A disk that is missing or has another system, or a mount that the kernel refuses.
pub fn create(
    early: &Early,
    cmdline: &CommandLine,
    options: &Options,
    modules: &mut Loader<'_>,
    mounted: &mut Mounted,
) -> Result<Root> {
    // A person may have unmounted it in the shell.
    if !is_mount_point(PATH) {
        *mounted = Mounted::Nothing;
    }
    if *mounted != Mounted::Nothing {
        log::info!("Using the root of the previous attempt again");
        return Root::open(PATH);
    }
    let path = Path::new(PATH);
    for mount in [PATH, space::DISK, space::MEMORY] {
        match unmount(mount, UnmountFlags::DETACH) {
            Ok(()) => log::info!("Unmounted {mount}, left by the previous attempt"),
            Err(Errno::INVAL | Errno::NOENT) => {} // This is the first attempt.
            Err(errno) => {
                return Err(errno).with_context(|| format!("unmounting {mount}, left by the previous attempt"));
            }
        }
    }
    let Some(device) = persistence::device(cmdline) else {
        Filesystem::tmpfs(&options.root.options()).mount(path)?;
        return with_early_mounts(Root::open(PATH)?, early);
    };
    persistence::mount(device, cmdline, modules, path)?;
    on_disk(device, early, options)
}

/// The root on the disk `device`, which is mounted on [`PATH`]. If the disk takes no changes, or has another system, the changes of this
/// boot are in memory.
fn on_disk(device: &str, early: &Early, options: &Options) -> Result<Root> {
    let disk = Root::open(PATH)?;
    let has_other_system = disk.inside(|| owner::check(device, options.persistence))?;
    let writable = disk.inside(|| Ok(space::writable(early.mounts())))?;
    if let Writable::Nothing(reason) = &writable {
        space::cover(PATH, device, reason, &options.root)?;
    }
    let root = with_early_mounts(Root::open(PATH)?, early)?;
    root.inside(|| {
        match &writable {
            Writable::Little(reason) => space::cover_written(device, reason, &options.root),
            Writable::All if has_other_system => space::cover_each(&[space::NIX_STATE], &options.root),
            Writable::All | Writable::Nothing(_) => {}
        }
        Ok(())
    })?;
    Ok(root)
}

/// Attaches copies of the mounts of the first step.
fn with_early_mounts(root: Root, early: &Early) -> Result<Root> {
    for target in early.mounts() {
        let mount = Detached::copy_of(target)?;
        root.inside(|| mount.attach(Path::new(target)))
            .with_context(|| format!("mount --rbind {target} in the new root"))?;
    }
    Ok(root)
}

/// Whether a file system is mounted on a directory.
pub fn is_mount_point(path: &str) -> bool {
    let device = |path: &str| fs::metadata(path).map(|found| found.dev()).ok();
    device(path).is_some() && device(path) != device("/")
}

impl Root {
    /// The root that is mounted on a directory.
    ///
    /// # Errors
    ///
    /// An error of open(2), with the path.
    pub fn open(path: &str) -> Result<Self> {
        open_directory(path).map(|directory| Self { directory })
    }

    /// The open directory.
    #[must_use]
    pub fn directory(&self) -> &OwnedFd {
        &self.directory
    }

    /// Runs `run` with the new root as `/`. This is the only way to resolve a path of the running system before the switch. Paths mean
    /// the same as after the switch: a symlink of the new root cannot lead into the initramfs.
    ///
    /// # Errors
    ///
    /// An error of `run`, or of fchdir(2) and chroot(2) when the root is changed and changed back.
    pub fn inside<T>(&self, run: impl FnOnce() -> Result<T>) -> Result<T> {
        self.go_inside()?;
        let result = run();
        leave()?;
        result
    }

    // Apart from `inside`, which the compiler copies for each of its callers.
    fn go_inside(&self) -> Result<()> {
        if let Ok(mut outside) = OUTSIDE.lock() {
            *outside = Some(open_directory("/")?);
        }
        enter(&self.directory)
    }
}

/// Whether the root of this process is a tmpfs.
///
/// # Errors
///
/// Those of statfs(2).
pub fn is_in_memory() -> Result<bool> {
    Ok(statfs("/").context("reading the type of the root file system")?.f_type == TMPFS)
}

/// Goes back to the initramfs, if this process is inside of the new root: at the end of [`Root::inside`], or after a panic there.
///
/// # Errors
///
/// Those of fchdir(2) and chroot(2).
pub fn leave() -> Result<()> {
    let initramfs = OUTSIDE.lock().ok().and_then(|mut outside| outside.take());
    initramfs.map_or(Ok(()), |initramfs| enter(&initramfs))
}

/// Makes an open directory the root and the working directory of this process.
///
/// # Errors
///
/// An error of fchdir(2) or chroot(2).
pub fn enter(directory: &OwnedFd) -> Result<()> {
    rustix::process::fchdir(directory).context("changing the working directory to the root of a file system")?;
    rustix::process::chroot(".").context("chroot to the working directory")
}

/// Opens a directory.
///
/// # Errors
///
/// An error of open(2), with the path.
pub fn open_directory(path: &str) -> Result<OwnedFd> {
    openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .with_context(|| format!("opening the directory {path}"))
}
