//! A host's own files: those that were added to the ramdisk below [`SOURCES`] are copied to the same path in the new root, so that
//! one store image serves many hosts, each with keys, a machine id and network files from an appended cpio archive.

use crate::boot::etc::InPlace;
use crate::boot::store::NewRoot;
use crate::contract::plan::FILES;
use anyhow::{Context, Error, Result, bail};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, openat, readlinkat, statat};
use rustix::io::Errno;
use rustix::path::Arg;
use std::ffi::{CStr, OsStr};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, lchown, symlink};
use std::path::Path;

/// The directories of such files in the ramdisk: firn's own, and that of NixOS' `boot.initrd.secrets`.
const SOURCES: [&str; 2] = [FILES, "/.initrd-secrets"];

/// Copies the files into the new root, with their modes and owners, and replaces those that are there. No files are no error.
///
/// # Errors
///
/// A file that cannot be read or written: a host without its keys is better not up.
pub fn copy(root: &NewRoot, _etc: &InPlace) -> Result<()> {
    for source in SOURCES {
        match open_directory(CWD, source) {
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno).with_context(|| format!("opening {source}")),
            Ok(directory) => {
                log::info!("Copying the files below {source}");
                let copied = root.inside(|| copy_below(&directory, Path::new("/")));
                copied.map_err(advise).with_context(|| format!("copying the files below {source}"))?;
            }
        }
    }
    Ok(())
}

/// Says what to do where the reason is a read-only file system.
fn advise(error: Error) -> Error {
    match error.downcast_ref::<io::Error>() {
        Some(reason) if reason.kind() == ErrorKind::ReadOnlyFilesystem => error.context(
            "the directory of a file is read-only; if it is in /etc, leave firn.etc=immutable out, or put the file elsewhere",
        ),
        _ => error,
    }
}

/// Copies the files in the open directory `from` into the directory `to`. By descriptor: `from` is in the initramfs, outside of the
/// root of this process.
fn copy_below(from: &OwnedFd, to: &Path) -> Result<()> {
    let context = || format!("reading the directory of the files for {}", to.display());
    for entry in Dir::read_from(from).with_context(context)? {
        let entry = entry.with_context(context)?;
        let name = entry.file_name();
        if !matches!(name.to_bytes(), b"." | b"..") {
            let to = to.join(OsStr::from_bytes(name.to_bytes()));
            copy_one(from, name, &to).with_context(|| format!("copying {}", to.display()))?;
        }
    }
    Ok(())
}

fn copy_one(from: &OwnedFd, name: &CStr, to: &Path) -> Result<()> {
    let status = statat(from, name, AtFlags::SYMLINK_NOFOLLOW).map_err(io::Error::from)?;
    let kind = FileType::from_raw_mode(status.st_mode);
    if kind == FileType::Directory {
        // One that is there already keeps its mode: who adds /etc/x does not mean to change /etc.
        if !to.is_dir() {
            fs::create_dir(to)?;
            set_owner_and_mode(to, &status)?;
        }
        return copy_below(&open_directory(from, name).map_err(io::Error::from)?, to);
    }
    // A symlink is replaced, and not the file that it leads to.
    if fs::symlink_metadata(to).is_ok() {
        fs::remove_file(to)?;
    }
    match kind {
        FileType::Symlink => {
            let target = readlinkat(from, name, Vec::new()).map_err(io::Error::from)?;
            symlink(OsStr::from_bytes(target.as_bytes()), to)?;
            Ok(lchown(to, Some(status.st_uid), Some(status.st_gid))?)
        }
        FileType::RegularFile => {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mut source = File::from(openat(from, name, flags, Mode::empty()).map_err(io::Error::from)?);
            let mut target = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
            io::copy(&mut source, &mut target)?;
            set_owner_and_mode(to, &status)
        }
        _ => bail!("it is neither a file, a directory nor a symlink; leave it out of the ramdisk"),
    }
}

fn set_owner_and_mode(path: &Path, of: &Stat) -> Result<()> {
    lchown(path, Some(of.st_uid), Some(of.st_gid))?;
    // After the owner: chown(2) takes set-user-ID bits away.
    Ok(fs::set_permissions(path, Permissions::from_mode(of.st_mode & 0o7777))?)
}

fn open_directory(at: impl AsFd, path: impl Arg) -> rustix::io::Result<OwnedFd> {
    openat(at, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn files_arrive_as_they_are() {
        let work = tempfile::tempdir().unwrap();
        let (from, to) = (work.path().join("from"), work.path().join("to"));
        fs::create_dir_all(from.join("etc/ssh")).unwrap();
        fs::set_permissions(from.join("etc"), Permissions::from_mode(0o700)).unwrap();
        fs::set_permissions(from.join("etc/ssh"), Permissions::from_mode(0o711)).unwrap();
        fs::write(from.join("etc/ssh/key"), "secret").unwrap();
        fs::set_permissions(from.join("etc/ssh/key"), Permissions::from_mode(0o600)).unwrap();
        fs::write(from.join("etc/tool"), "").unwrap();
        fs::set_permissions(from.join("etc/tool"), Permissions::from_mode(0o4755)).unwrap();
        symlink("/nowhere", from.join("etc/link")).unwrap();
        fs::create_dir_all(to.join("etc")).unwrap();
        fs::set_permissions(to.join("etc"), Permissions::from_mode(0o755)).unwrap();
        // In the place of a file that is replaced: not what it points to.
        fs::write(work.path().join("other"), "untouched").unwrap();
        symlink(work.path().join("other"), to.join("etc/tool")).unwrap();

        copy_below(&open_directory(CWD, &from).unwrap(), &to).unwrap();
        assert_eq!(fs::read_to_string(to.join("etc/ssh/key")).unwrap(), "secret");
        assert_eq!(fs::read_link(to.join("etc/link")).unwrap(), Path::new("/nowhere"));
        assert_eq!(fs::read_to_string(work.path().join("other")).unwrap(), "untouched");
        let modes: Vec<_> = ["etc", "etc/ssh", "etc/ssh/key", "etc/tool"].map(|path| mode(&to.join(path))).into();
        assert_eq!(modes, [0o755, 0o711, 0o600, 0o4755]);
    }

    #[test]
    fn files_keep_their_owners() {
        if !rustix::process::geteuid().is_root() {
            return eprintln!("skipped: only root gives files away");
        }
        let work = tempfile::tempdir().unwrap();
        let (from, to) = (work.path().join("from"), work.path().join("to"));
        fs::create_dir_all(from.join("home")).unwrap();
        fs::create_dir(&to).unwrap();
        fs::write(from.join("home/key"), "secret").unwrap();
        fs::set_permissions(from.join("home/key"), Permissions::from_mode(0o4600)).unwrap();
        symlink("key", from.join("home/link")).unwrap();
        let paths = [("home", 1000, 100), ("home/key", 1001, 101), ("home/link", 1002, 102)];
        for (path, user, group) in paths {
            lchown(from.join(path), Some(user), Some(group)).unwrap();
        }
        fs::set_permissions(from.join("home/key"), Permissions::from_mode(0o4600)).unwrap();
        copy_below(&open_directory(CWD, &from).unwrap(), &to).unwrap();
        for (path, user, group) in paths {
            let found = fs::symlink_metadata(to.join(path)).unwrap();
            assert_eq!((found.uid(), found.gid()), (user, group), "{path}");
        }
        assert_eq!(mode(&to.join("home/key")), 0o4600);
    }

    #[test]
    fn a_file_in_the_way_of_a_directory_is_named() {
        let work = tempfile::tempdir().unwrap();
        let (from, to) = (work.path().join("from"), work.path().join("to"));
        fs::create_dir_all(from.join("etc/ssh")).unwrap();
        fs::create_dir_all(&to).unwrap();
        fs::write(to.join("etc"), "").unwrap();
        let error = format!("{:#}", copy_below(&open_directory(CWD, &from).unwrap(), &to).unwrap_err());
        assert!(error.contains("/to/etc") && error.contains("exists"), "{error}");
    }
}
