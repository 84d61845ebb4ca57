//! A store image that is an erofs, by mkfs.erofs.
//!
//! It packs one directory and nothing else, and versions before 1.7 read no archive: so the store paths are copied to a
//! directory first, which takes their size on the disk of the output. A copy shares its blocks where the file system can.

use crate::build::store::packing::Packing;
use crate::formats::digest::sha256;
use crate::host::interrupt;
use crate::host::progress::Step;
use crate::host::tool;
use anyhow::{Context, Result};
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Makes an image of files and directories, which are at its root by their names. What mkfs.erofs has read of
/// them counts as done.
///
/// # Errors
///
/// No room for a copy, no mkfs.erofs on this machine, or one that fails.
pub fn make(paths: &[&Path], image: &Path, packing: &Packing, scratch: &Path, step: &Step) -> Result<()> {
    let tree = Tree(scratch.join("tree"));
    // Whatever the umask of this build: everybody on the booted system may enter its store.
    fs::create_dir(&tree.0)
        .and_then(|()| fs::set_permissions(&tree.0, Permissions::from_mode(0o755)))
        .with_context(|| format!("making {}", tree.0.display()))?;
    for path in paths {
        copy(path, &tree.0.join(path.file_name().unwrap_or_default()))?;
    }
    let compression = packing.compression().to_string();
    let mut command = Command::new("mkfs.erofs");
    // Nix knows no extended attributes, gives every file the time 1, and all files to root.
    command.args(["-x-1", "-T1", "--all-root", "--quiet"]).arg(format!("-U{}", uuid(paths, &compression)?));
    if compression != "none" {
        command.arg(format!("-z{compression}")).arg(format!("-C{}", packing.block_size()));
    }
    command.arg(image).arg(&tree.0);
    let mut before = 0;
    let read = |bytes: u64| {
        step.advance(bytes.saturating_sub(before));
        before = bytes;
    };
    tool::run(&mut command, "install erofs-utils (1.5 or newer)", |_| {}, read)
}

/// A copy of store paths, which goes when it is dropped. Directories of the store are read-only, and only root could delete
/// what is in them.
struct Tree(PathBuf);

impl Drop for Tree {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.0) {
            eprintln!("firn: deleting {}: {error}", self.0.display());
        }
    }
}

fn remove(directory: &Path) -> io::Result<()> {
    fs::set_permissions(directory, Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() { remove(&entry.path())? } else { fs::remove_file(entry.path())? }
    }
    fs::remove_dir(directory)
}

/// A UUID that follows from what is packed: mkfs.erofs would take a random one.
fn uuid(paths: &[&Path], compression: &str) -> Result<String> {
    let names: Vec<_> = paths.iter().map(|path| path.file_name().unwrap_or_default().to_string_lossy()).collect();
    let (_, hex) = sha256([names.join("\n").as_bytes(), compression.as_bytes()].concat().as_slice())?;
    Ok([&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..32]].join("-"))
}

/// Copies a file, a directory with all that is in it, or a symlink. Hard links of the build machine's store (nix-store
/// --optimise) become files of their own.
fn copy(from: &Path, to: &Path) -> Result<()> {
    interrupt::check()?;
    copy_one(from, to).with_context(|| format!("copying {} for mkfs.erofs", from.display()))
}

fn copy_one(from: &Path, to: &Path) -> Result<()> {
    let metadata = fs::symlink_metadata(from)?;
    if metadata.is_symlink() {
        return Ok(symlink(fs::read_link(from)?, to)?);
    }
    if metadata.is_dir() {
        fs::create_dir(to)?;
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            copy(&entry.path(), &to.join(entry.file_name()))?;
        }
    } else {
        fs::copy(from, to)?;
    }
    Ok(fs::set_permissions(to, Permissions::from_mode(metadata.permissions().mode() & 0o7777))?)
}
