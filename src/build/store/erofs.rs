//! A store image in the format erofs, made by mkfs.erofs.
//!
//! mkfs.erofs packs one directory, and versions before 1.7 read no archive. So the store paths are first copied to a directory,
//! which needs their size on the file system of the output. The copies share blocks with the originals where the file system
//! supports it.

use crate::build::store::packing::Packing;
use crate::formats::digest::sha256;
use crate::host::interrupt;
use crate::host::progress::{self, Step};
use crate::host::tool;
use anyhow::{Context, Result};
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The next step without mkfs.erofs.
const ADVICE: &str = "install erofs-utils (1.5 or newer)";

/// Makes an image of files and directories, which lie at its root under their names. The bytes that mkfs.erofs has read count
/// as done.
///
/// # Errors
///
/// No room for a copy, no mkfs.erofs on this machine, or mkfs.erofs fails.
pub fn make(paths: &[&Path], image: &Path, packing: &Packing, scratch: &Path, step: &Step) -> Result<()> {
    let copies = StoreCopy(scratch.join("tree"));
    // Independent of the umask of this build: everybody on the booted system may enter the store.
    fs::create_dir(&copies.0)
        .and_then(|()| fs::set_permissions(&copies.0, Permissions::from_mode(0o755)))
        .with_context(|| format!("making {}", copies.0.display()))?;
    for path in paths {
        copy(path, &copies.0.join(path.file_name().unwrap_or_default()))?;
    }
    let compression = packing.compression().to_string();
    let mut command = Command::new("mkfs.erofs");
    command.args(options(packing)).arg("--quiet").arg(format!("-U{}", uuid(paths, &compression)?));
    command.arg(image).arg(&copies.0);
    let mut before = 0;
    let read = |bytes: u64| {
        step.advance(bytes.saturating_sub(before));
        before = bytes;
    };
    tool::run(&mut command, ADVICE, |_| {}, read)
}

/// The version of mkfs.erofs.
///
/// # Errors
///
/// No mkfs.erofs on this machine.
pub fn version() -> Result<String> {
    tool::version(Command::new("mkfs.erofs").arg("--version"), ADVICE)
}

/// The options that decide the bytes of an image, except its UUID.
#[must_use]
pub fn options(packing: &Packing) -> Vec<String> {
    // Nix stores no extended attributes, and gives every file the time 1 and the owner root.
    let mut options: Vec<String> = ["-x-1", "-T1", "--all-root"].map(Into::into).into();
    let compression = packing.compression().to_string();
    if compression != "none" {
        options.extend([format!("-z{compression}"), format!("-C{}", packing.block_size())]);
    }
    options
}

/// A directory with copies of store paths, deleted when this is dropped. Directories of a store are read-only: an ordinary user
/// has to make them writable before deleting their files.
struct StoreCopy(PathBuf);

impl Drop for StoreCopy {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.0) {
            progress::tell(&format!("firn: deleting {}: {error}", self.0.display()));
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

/// A UUID that follows from the packed paths: that of mkfs.erofs would be random.
fn uuid(paths: &[&Path], compression: &str) -> Result<String> {
    let names: Vec<_> = paths.iter().map(|path| path.file_name().unwrap_or_default().to_string_lossy()).collect();
    let (_, hex) = sha256([names.join("\n").as_bytes(), compression.as_bytes()].concat().as_slice())?;
    Ok([&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..32]].join("-"))
}

/// Copies a file, a whole directory, or a symlink. Hard links in the store of the build machine (nix-store --optimise) become
/// separate files.
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
