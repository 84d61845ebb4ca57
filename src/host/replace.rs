//! Whether a file can be replaced: everything that could fail during a publication is found before it begins.

use anyhow::{Context, Result, bail};
use rustix::fs::{AtFlags, CWD, FileType, StatxAttributes, StatxFlags, statx};
use rustix::io::Errno;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The bit of directories such as /tmp, in which only the owner of a file may remove it (inode(7)).
const STICKY: u32 = 0o1000;

/// Makes sure that a new file can get the name `path`, in the place of a file that may be there. A symlink is replaced itself.
///
/// # Errors
///
/// A directory, a device, a mount point, a file that nobody may change (chattr +i), and one of somebody else in a directory such as /tmp.
pub fn ensure_replaceable(path: &Path) -> Result<()> {
    let shown = path.display();
    let found = match statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS) {
        Err(Errno::NOENT) => return Ok(()),
        found => found.with_context(|| format!("looking at {shown}"))?,
    };
    let fixed = StatxAttributes::IMMUTABLE | StatxAttributes::APPEND;
    let reason = match FileType::from_raw_mode(found.stx_mode.into()) {
        FileType::Directory => Some("is a directory"),
        FileType::RegularFile => None,
        // A link to a device, such as /dev/stdout, is as good as the device.
        FileType::Symlink => match fs::metadata(path) {
            Ok(target) if !target.is_file() && !target.is_dir() => Some("is no regular file"),
            _ => None,
        },
        _ => Some("is no regular file"),
    };
    let reason = reason.or_else(|| {
        if found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
            Some("is a mount point")
        } else if found.stx_attributes.intersects(fixed) {
            Some("is protected against changes (chattr)")
        } else {
            None
        }
    });
    if let Some(reason) = reason {
        bail!("{shown} {reason}, and the output has a file of this name: remove it, or give another place with --out");
    }
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let parent = fs::metadata(directory).with_context(|| format!("looking at {}", directory.display()))?;
    let user = rustix::process::geteuid();
    if parent.mode() & STICKY != 0 && !user.is_root() && ![found.stx_uid, parent.uid()].contains(&user.as_raw()) {
        bail!("{shown} belongs to another user, who alone may remove it here: give another place with --out");
    }
    Ok(())
}

/// Writes a file or a directory to the disk. Some file systems have nothing to write for a directory.
///
/// # Errors
///
/// Those of fsync(2).
pub fn flush(path: &Path) -> Result<()> {
    let flushed = File::open(path).and_then(|file| file.sync_all());
    match flushed {
        Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => Ok(()),
        flushed => flushed.with_context(|| format!("writing {} to the disk", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::process::Command;

    #[test]
    fn c_8_files_that_cannot_be_replaced_are_named_before() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::create_dir(path("directory")).unwrap();
        fs::write(path("file"), "").unwrap();
        symlink("/dev/null", path("device")).unwrap();
        symlink("nothing", path("dangling")).unwrap();
        symlink("file", path("link")).unwrap();
        assert!(Command::new("mkfifo").arg(path("pipe")).status().unwrap().success());
        for name in ["new", "file", "link", "dangling"] {
            ensure_replaceable(&path(name)).unwrap();
        }
        for (name, expected) in [
            ("directory", "is a directory"),
            ("pipe", "is no regular file"),
            ("device", "is no regular file"),
            ("/dev/null", "is no regular file"),
        ] {
            let error = ensure_replaceable(&path(name)).unwrap_err().to_string();
            let named = error.starts_with(&*path(name).to_string_lossy());
            assert!(named && error.contains(expected) && error.contains("--out"), "{error}");
        }
    }
}
