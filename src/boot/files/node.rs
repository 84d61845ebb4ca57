//! A file of any kind but a directory.

use crate::boot::files::directory::set_owner_and_mode;
use crate::boot::files::open;
use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, Stat, Timespec, Timestamps, mknodat, openat, readlinkat, renameat, symlinkat,
    unlinkat, utimensat,
};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, UnmountFlags, move_mount, open_tree};
use std::ffi::CStr;
use std::fs::File;
use std::io;

/// The name of a new file until it is complete.
const NEW: &CStr = c".firn-init.new";

/// Copies a file into the directory `to`, with its mode, owner and time. Devices, sockets and FIFOs are made with mknod(2), and not
/// opened. An existing file of the name, or a symlink, is replaced when the new one is complete, so that half of a key never takes the
/// place of a whole one.
///
/// # Errors
///
/// Those of the system calls. Then nothing of the file is left.
pub fn copy(from: BorrowedFd<'_>, name: &CStr, status: &Stat, to: &OwnedFd) -> Result<(), Errno> {
    // A machine that crashed may have left it.
    remove(to);
    let made = make(from, name, status, to).and_then(|()| renameat(to, NEW, to, name));
    made.inspect_err(|_| remove(to))
}

/// Mounts a file of the directory `from` over the file of the same name in the directory `to`, which may be the same. Nothing can replace
/// or remove a mount point: rename(2) and unlink(2) fail with `EBUSY`. A symlink is mounted as a symlink.
///
/// # Errors
///
/// Those of `open_tree(2)` and `move_mount(2)`.
pub fn mount(from: BorrowedFd<'_>, to: &OwnedFd, name: &CStr) -> Result<(), Errno> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    let file = open_tree(from, name, flags)?;
    move_mount(file, c"", to, name, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

/// Unmounts a file that an earlier attempt mounted.
pub fn unmount(path: &str) {
    rustix::mount::unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).unwrap_or_default();
}

fn remove(to: &OwnedFd) {
    unlinkat(to, NEW, AtFlags::empty()).unwrap_or_default();
}

fn make(from: BorrowedFd<'_>, name: &CStr, status: &Stat, to: &OwnedFd) -> Result<(), Errno> {
    let (kind, private) = (FileType::from_raw_mode(status.st_mode), Mode::RUSR | Mode::WUSR);
    match kind {
        FileType::Symlink => symlinkat(&*readlinkat(from, name, Vec::new())?, to, NEW)?,
        FileType::RegularFile => {
            let mut source = File::from(open(from, name, OFlags::NOFOLLOW)?);
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let mut target = File::from(openat(to, NEW, flags, private)?);
            io::copy(&mut source, &mut target).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        }
        _ => mknodat(to, NEW, kind, private, status.st_rdev)?,
    }
    let mode = (kind != FileType::Symlink).then_some(status.st_mode);
    set_owner_and_mode(to, NEW, status.st_uid, status.st_gid, mode)?;
    let time = Timespec { tv_sec: status.st_mtime, tv_nsec: status.st_mtime_nsec.cast_signed() };
    utimensat(to, NEW, &Timestamps { last_access: time, last_modification: time }, AtFlags::SYMLINK_NOFOLLOW)
}
