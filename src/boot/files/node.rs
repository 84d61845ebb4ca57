//! A file of any kind but a directory.

use crate::boot::files::directory::set_owner_and_mode;
use crate::boot::files::open;
use anyhow::Result;
use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, Stat, Timespec, Timestamps, mknodat, openat, readlinkat, renameat, symlinkat,
    unlinkat, utimensat,
};
use rustix::io::Errno;
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
pub fn copy(from: BorrowedFd<'_>, name: &CStr, status: &Stat, to: &OwnedFd) -> Result<()> {
    // A machine that crashed may have left it.
    remove(to);
    let made = make(from, name, status, to).and_then(|()| renameat(to, NEW, to, name));
    Ok(made.inspect_err(|_| remove(to))?)
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
