//! Files that others made: the ramdisk and the disk can have anything in their places. To open a FIFO waits for its other end, and a read
//! of a device may never end. So only regular files are opened, and directories, whose read is an error.

use anyhow::{Context, Result};
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::Path;

/// Checks that a file can be opened and read without an endless wait; symlinks are followed.
///
/// # Errors
///
/// Those of stat(2), and a FIFO, a socket or a device.
pub fn check(path: &str) -> io::Result<()> {
    let found = fs::metadata(path)?;
    if found.is_file() || found.is_dir() {
        return Ok(());
    }
    Err(io::Error::new(ErrorKind::InvalidInput, "it is not a regular file; replace it by one"))
}

/// Opens a regular file for reading.
///
/// # Errors
///
/// Those of [`check`] and of open(2).
pub fn open(path: &str) -> io::Result<File> {
    check(path)?;
    File::open(path)
}

/// Reads a regular file of UTF-8.
///
/// # Errors
///
/// Those of [`check`], of open(2) and of read(2), and bytes that are not UTF-8.
pub fn read_to_string(path: &str) -> io::Result<String> {
    check(path)?;
    fs::read_to_string(path)
}

/// Removes a file of any kind, or a directory with all files in it. A missing file is fine.
///
/// # Errors
///
/// Those of unlink(2) and rmdir(2).
pub fn remove(path: &Path) -> io::Result<()> {
    let removed = fs::remove_file(path);
    match removed.as_ref().map_err(io::Error::kind) {
        Err(ErrorKind::NotFound) => Ok(()),
        Err(ErrorKind::IsADirectory) => fs::remove_dir_all(path),
        _ => removed,
    }
}

/// Writes a file of its own. Anything else in its place is deleted: to open a FIFO that somebody put there would wait.
///
/// # Errors
///
/// Those of unlink(2), rmdir(2), open(2) and write(2), with the path.
pub fn replace(path: &str, contents: &[u8]) -> Result<()> {
    remove(Path::new(path)).and_then(|()| fs::write(path, contents)).with_context(|| format!("writing {path}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{CWD, FileType, Mode, mknodat};

    #[test]
    fn a_6_only_regular_files_are_opened() {
        let work = tempfile::tempdir().unwrap();
        let path = |name: &str| work.path().join(name).to_str().unwrap().to_owned();
        fs::write(path("file"), "text").unwrap();
        std::os::unix::fs::symlink("file", path("link")).unwrap();
        assert_eq!(read_to_string(&path("link")).unwrap(), "text");
        mknodat(CWD, path("pipe"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        assert_eq!(read_to_string(&path("")).unwrap_err().kind(), ErrorKind::IsADirectory);
        replace(&path("other"), b"new").unwrap();
        mknodat(CWD, path("replaced"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        replace(&path("replaced"), b"new").unwrap();
        assert_eq!(read_to_string(&path("replaced")).unwrap(), "new");
        assert!(replace(&path("missing/other"), b"new").is_err());
        for refused in [path("pipe"), "/dev/zero".into()] {
            let error = open(&refused).unwrap_err().to_string();
            assert_eq!(error, "it is not a regular file; replace it by one", "{refused}");
        }
        assert_eq!(open(&path("missing")).unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn files_of_every_kind_are_removed() {
        let work = tempfile::tempdir().unwrap();
        let path = work.path().join("x");
        remove(&path).unwrap();
        fs::create_dir_all(path.join("directory")).unwrap();
        remove(&path).unwrap();
        std::os::unix::fs::symlink(work.path(), &path).unwrap();
        remove(&path).unwrap();
        assert_eq!(fs::read_dir(work.path()).unwrap().count(), 0);
    }
}
