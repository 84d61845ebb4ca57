//! The files of a host, such as keys, a machine id and network files. They come in a cpio archive that is appended to the ramdisk, below
//! [`SOURCES`], and stage 1 copies them to the same paths in the new root. So one store image serves many hosts.

use crate::boot::etc::InPlace;
use crate::boot::store::NewRoot;
use crate::contract::plan::FILES;
use anyhow::{Context, Error, Result, bail};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, openat, readlinkat, statat};
use rustix::path::Arg;
use std::ffi::{CStr, OsStr};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, lchown, symlink};
use std::path::Path;

/// The directories of these files in the ramdisk: firn's own, and the directory of NixOS' `boot.initrd.secrets`.
const SOURCES: [&str; 2] = [FILES, "/.initrd-secrets"];

/// Copies the files into the new root, with their modes and owners, and replaces existing files. A ramdisk without such files is fine.
///
/// # Errors
///
/// A file that cannot be read or written. The boot must not go on silently without the keys of the host.
pub fn copy(root: &NewRoot, _etc: &InPlace) -> Result<()> {
    for source in SOURCES {
        match File::open(source) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("opening {source}")),
            Ok(directory) => {
                log::info!("Copying the files below {source}");
                let copied = root.inside(|| copy_below(&directory.into(), Path::new("/")));
                copied.map_err(advise).with_context(|| format!("copying the files below {source}"))?;
            }
        }
    }
    Ok(())
}

/// Adds advice to an error about a read-only file system.
fn advise(error: Error) -> Error {
    match error.downcast_ref::<io::Error>() {
        Some(reason) if reason.kind() == ErrorKind::ReadOnlyFilesystem => error.context(
            "the directory of this file is read-only; if it is in /etc, remove firn.etc=immutable from the kernel command line, \
             or put the file elsewhere",
        ),
        _ => error,
    }
}

/// Copies the files in the open directory `from` into the directory `to`. `from` is an open descriptor because it is in the initramfs,
/// outside of the root of this process.
fn copy_below(from: &OwnedFd, to: &Path) -> Result<()> {
    let context = || format!("reading the directory of the ramdisk for {}", to.display());
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
        // An existing directory keeps its mode and owner: a file /etc/x in the archive is no reason to change /etc.
        if !to.is_dir() {
            fs::create_dir(to)?;
            set_owner_and_mode(to, &status).inspect_err(|_| drop(fs::remove_dir(to)))?;
        }
        return copy_below(&open(from, name, OFlags::DIRECTORY)?, to);
    }
    // Replace an existing symlink itself, not its target.
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
            let mut source = File::from(open(from, name, OFlags::empty())?);
            let mut target = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
            // Half of a key is worse than none.
            let copied = io::copy(&mut source, &mut target).map_err(Error::from);
            copied.and_then(|_| set_owner_and_mode(to, &status)).inspect_err(|_| drop(fs::remove_file(to)))
        }
        _ => bail!("it is not a file, a directory or a symlink; remove it from the ramdisk"),
    }
}

fn set_owner_and_mode(path: &Path, of: &Stat) -> Result<()> {
    lchown(path, Some(of.st_uid), Some(of.st_gid))?;
    // After the owner: chown(2) clears set-user-ID bits.
    Ok(fs::set_permissions(path, Permissions::from_mode(of.st_mode & 0o7777))?)
}

/// Opens a directory or a file of the initramfs, and no symlink.
fn open(at: impl AsFd, name: impl Arg, flags: OFlags) -> io::Result<OwnedFd> {
    Ok(openat(at, name, flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?)
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
        // A symlink at the path of a file: the copy replaces the symlink, not its target.
        fs::write(work.path().join("other"), "untouched").unwrap();
        symlink(work.path().join("other"), to.join("etc/tool")).unwrap();

        copy_below(&File::open(&from).unwrap().into(), &to).unwrap();
        assert_eq!(fs::read_to_string(to.join("etc/ssh/key")).unwrap(), "secret");
        assert_eq!(fs::read_link(to.join("etc/link")).unwrap(), Path::new("/nowhere"));
        assert_eq!(fs::read_to_string(work.path().join("other")).unwrap(), "untouched");
        let modes: Vec<_> = ["etc", "etc/ssh", "etc/ssh/key", "etc/tool"].map(|path| mode(&to.join(path))).into();
        assert_eq!(modes, [0o755, 0o711, 0o600, 0o4755]);
    }

    #[test]
    fn a_symlink_in_the_ramdisk_is_not_followed() {
        let work = tempfile::tempdir().unwrap();
        fs::create_dir(work.path().join("directory")).unwrap();
        fs::write(work.path().join("file"), "").unwrap();
        let directory = File::open(work.path()).unwrap();
        for (name, flags) in [("file", OFlags::empty()), ("directory", OFlags::DIRECTORY)] {
            let link = format!("link to {name}");
            symlink(name, work.path().join(&link)).unwrap();
            open(&directory, name, flags).unwrap();
            open(&directory, &*link, flags).unwrap_err();
        }
    }

    #[test]
    fn files_keep_their_owners() {
        if !rustix::process::geteuid().is_root() {
            return eprintln!("skipped: only root can change owners");
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
        copy_below(&File::open(&from).unwrap().into(), &to).unwrap();
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
        let error = format!("{:#}", copy_below(&File::open(&from).unwrap().into(), &to).unwrap_err());
        assert!(error.contains("/to/etc") && error.contains("exists"), "{error}");
    }
}
