//! A host's own files: what was added to the ramdisk below [`SOURCES`] is copied to the same place in the new root, so that
//! one store image serves many hosts, each with keys, a machine id and network files from an appended cpio archive.

use crate::boot::root::Root;
use crate::contract::plan::FILES;
use anyhow::{Context, Error, Result};
use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::Path;

/// Where such files lie in the ramdisk: firn's own place, and that of NixOS' `boot.initrd.secrets`.
const SOURCES: [&str; 2] = [FILES, "/.initrd-secrets"];

/// Copies the files, with their modes and owners; those that are there already are replaced. None are no error.
///
/// # Errors
///
/// A file that cannot be read or written: a host without its keys is better not up.
pub fn copy(root: &Root) -> Result<()> {
    for source in SOURCES {
        match fs::symlink_metadata(source) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("looking at {source}")),
            Ok(_) => {
                log::info!("Copying the files below {source}");
                copy_below(Path::new(source), &root.at("/")).map_err(advise)?;
            }
        }
    }
    Ok(())
}

/// Says what to do where the reason is a file system that takes no files.
fn advise(error: Error) -> Error {
    match error.downcast_ref::<io::Error>() {
        Some(reason) if reason.kind() == ErrorKind::ReadOnlyFilesystem => error.context(
            "the place of a file is read-only; if it is in /etc, leave firn.etc=immutable out, or put the file elsewhere",
        ),
        _ => error,
    }
}

/// Copies what is in the directory `from` into the directory `to`.
fn copy_below(from: &Path, to: &Path) -> Result<()> {
    let entries = fs::read_dir(from).with_context(|| format!("reading the directory {}", from.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("reading the directory {}", from.display()))?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        copy_one(&from, &to).with_context(|| format!("copying {} to {}", from.display(), to.display()))?;
    }
    Ok(())
}

fn copy_one(from: &Path, to: &Path) -> Result<()> {
    let metadata = fs::symlink_metadata(from)?;
    let kind = metadata.file_type();
    let there = fs::symlink_metadata(to).ok();
    if kind.is_dir() {
        // One that is there already keeps its mode: who adds /etc/x does not mean to change /etc.
        if !there.is_some_and(|there| there.is_dir()) {
            fs::create_dir(to)?;
            set_owner_and_mode(to, &metadata)?;
        }
        return copy_below(from, to);
    }
    if there.is_some() {
        fs::remove_file(to)?;
    }
    if kind.is_symlink() {
        symlink(fs::read_link(from)?, to)?;
        return Ok(lchown(to, Some(metadata.uid()), Some(metadata.gid()))?);
    }
    fs::copy(from, to)?;
    set_owner_and_mode(to, &metadata)
}

fn set_owner_and_mode(path: &Path, of: &Metadata) -> Result<()> {
    chown(path, Some(of.uid()), Some(of.gid()))?;
    // After the owner: chown(2) takes set-user-ID bits away.
    Ok(fs::set_permissions(path, PermissionsExt::from_mode(of.mode() & 0o7777))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;

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

        copy_below(&from, &to).unwrap();
        assert_eq!(fs::read_to_string(to.join("etc/ssh/key")).unwrap(), "secret");
        assert_eq!(fs::read_link(to.join("etc/link")).unwrap(), Path::new("/nowhere"));
        assert_eq!(fs::read_to_string(work.path().join("other")).unwrap(), "untouched");
        let modes: Vec<_> = ["etc", "etc/ssh", "etc/ssh/key", "etc/tool"].map(|path| mode(&to.join(path))).into();
        assert_eq!(modes, [0o755, 0o711, 0o600, 0o4755]);
    }

    #[test]
    fn a_file_in_the_way_of_a_directory_is_named() {
        let work = tempfile::tempdir().unwrap();
        let (from, to) = (work.path().join("from"), work.path().join("to"));
        fs::create_dir_all(from.join("etc/ssh")).unwrap();
        fs::create_dir_all(&to).unwrap();
        fs::write(to.join("etc"), "").unwrap();
        let error = format!("{:#}", copy_below(&from, &to).unwrap_err());
        assert!(error.contains("from/etc to ") && error.contains("exists"), "{error}");
    }
}
