//! Copies of files, and reflinks where the file system has them.

use crate::formats::digest;
use crate::host::file;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Makes a file with the data of another: a reflink where the file system has them (btrfs, XFS; `ioctl_ficlone(2)`), a copy elsewhere.
/// Never a hard link: whoever writes to one of its names changes the others. A file that not everybody may read gives one that only
/// its owner may read.
///
/// # Errors
///
/// Those of reading and writing.
pub fn clone_or_copy(from: &Path, to: &Path) -> io::Result<()> {
    let source = file::regular(from)?;
    if !reflink(&source, to)? {
        let mut file = new_file(to, is_private(&source)?)?;
        digest::copy(source, &mut file)?;
    }
    Ok(())
}

/// Makes a reflink. False where the file system has none; there is no file then.
///
/// # Errors
///
/// Those of making a file.
pub fn reflink(source: &File, to: &Path) -> io::Result<bool> {
    let file = new_file(to, is_private(source)?)?;
    if rustix::fs::ioctl_ficlone(&file, source).is_ok() {
        return Ok(true);
    }
    // A copy meets the same problem, if it is one, and names it.
    fs::remove_file(to)?;
    Ok(false)
}

/// Whether not everybody may read a file.
///
/// # Errors
///
/// Those of fstat(2).
pub fn is_private(file: &File) -> io::Result<bool> {
    Ok(file.metadata()?.permissions().mode() & 0o004 == 0)
}

/// Makes a file, which only its owner may read if it is `private`.
///
/// # Errors
///
/// Those of open(2).
pub fn new_file(path: &Path, private: bool) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(if private { 0o600 } else { 0o666 }).open(path)
}
