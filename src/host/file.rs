//! Opening files that others name: a pipe would keep a program waiting for ever.

use anyhow::{Context, Result, ensure};
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Opens a regular file. `wanted`: what a user should give, for the error.
///
/// # Errors
///
/// A file that cannot be opened, or one that is no regular file: a directory, a pipe, a device.
pub fn open(path: &Path, wanted: &str) -> Result<File> {
    let file = at_once(path).with_context(|| format!("opening {}; give {wanted}", path.display()))?;
    let metadata = file.metadata().with_context(|| format!("looking at {}", path.display()))?;
    ensure!(!metadata.is_dir(), "{} is a directory; give {wanted}", path.display());
    ensure!(metadata.is_file(), "{} is no regular file; copy its contents into a file, and give that", path.display());
    Ok(file)
}

/// Opens a regular file, or a directory, which fails when it is read.
///
/// # Errors
///
/// As [`open`], without the name of the file.
pub fn regular(path: &Path) -> io::Result<File> {
    let file = at_once(path)?;
    let metadata = file.metadata()?;
    if metadata.is_file() || metadata.is_dir() {
        return Ok(file);
    }
    Err(io::Error::other("it is no regular file; copy its contents into a file, and give that"))
}

/// Reads a regular file.
///
/// # Errors
///
/// As [`regular`].
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut contents = Vec::new();
    regular(path)?.read_to_end(&mut contents)?;
    Ok(contents)
}

/// Opens a file. A pipe without a writer opens at once with this flag; regular files have no use for it.
fn at_once(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)
}
