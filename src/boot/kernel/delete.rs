//! Deletes all files of a file system, by descriptor.

use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, fstat, openat, statat, unlinkat};
use std::ffi::CStr;
use std::mem::MaybeUninit;

/// Deletes the files of the initramfs, including store images: the loop device keeps their contents. A file that cannot be deleted is
/// only a warning, since it only costs memory.
pub fn empty(initramfs: &OwnedFd) {
    match fstat(initramfs) {
        Ok(status) => delete_below(initramfs, status.st_dev),
        Err(errno) => log::warn!("Emptying the initramfs: {errno}"),
    }
}

/// Deletes everything below `directory` on the file system `device` (`st_dev`). By descriptor, so that no path can lead out of it.
fn delete_below(directory: &OwnedFd, device: u64) {
    // On the stack: a heap buffer for each directory costs more than the deletion.
    let mut buffer = [const { MaybeUninit::uninit() }; 2048];
    let mut entries = RawDir::new(directory, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = match entry {
            Ok(entry) => entry,
            Err(errno) => return log::warn!("Emptying the initramfs: reading a directory: {errno}"),
        };
        if let Err(errno) = delete(directory, entry.file_name(), device) {
            log::warn!("Emptying the initramfs: {}: {errno}", entry.file_name().to_string_lossy());
        }
    }
}

fn delete(directory: &OwnedFd, name: &CStr, device: u64) -> rustix::io::Result<()> {
    if matches!(name.to_bytes(), b"." | b"..") {
        return Ok(());
    }
    let status = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
    if status.st_dev != device {
        return Ok(());
    }
    if FileType::from_raw_mode(status.st_mode) != FileType::Directory {
        return unlinkat(directory, name, AtFlags::empty());
    }
    delete_below(&open_directory(directory, name)?, device);
    unlinkat(directory, name, AtFlags::REMOVEDIR)
}

/// Opens a directory, but not through a symlink: a symlink that has replaced the directory in the meantime may lead out of the file
/// system.
///
/// # Errors
///
/// Those of open(2); `NOTDIR` for a symlink.
pub fn open_directory(at: &OwnedFd, name: &CStr) -> rustix::io::Result<OwnedFd> {
    openat(at, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::CWD;
    use rustix::io::Errno;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn open(path: &std::path::Path) -> OwnedFd {
        openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap()
    }

    #[test]
    fn nothing_behind_a_symlink_is_deleted() {
        let work = tempfile::tempdir().unwrap();
        let (initramfs, other) = (work.path().join("initramfs"), work.path().join("other"));
        fs::create_dir_all(initramfs.join("a/b")).unwrap();
        fs::create_dir(&other).unwrap();
        fs::write(initramfs.join("a/b/file"), "").unwrap();
        fs::write(other.join("file"), "").unwrap();
        symlink(&other, initramfs.join("a/link")).unwrap();
        symlink(&other, initramfs.join("link")).unwrap();
        // A symlink may replace a directory between statat(2) and openat(2).
        assert_eq!(open_directory(&open(&initramfs), c"link").unwrap_err(), Errno::NOTDIR);
        open_directory(&open(&initramfs), c"a").unwrap();
        empty(&open(&initramfs));
        assert_eq!(fs::read_dir(&initramfs).unwrap().count(), 0);
        assert!(other.join("file").exists());
    }
}
