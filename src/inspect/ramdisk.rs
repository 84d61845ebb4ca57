//! A ramdisk in a file, as the kernel unpacks it.

pub use crate::contract::place::is_read_in_place;
use crate::formats::ramdisk;
pub use crate::formats::ramdisk::{Contents, Segment, Stop, Visit, Warning};
use crate::host::file;
use crate::host::publication::settle;
use anyhow::{Context, Result, bail};
use std::fs::File;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};

/// A ramdisk in a file.
#[derive(Debug)]
pub struct Ramdisk {
    /// Its path.
    pub path: PathBuf,
    /// Its size, bytes.
    pub bytes: u64,
    file: File,
}

impl Ramdisk {
    /// Opens a file, or the ramdisk in a directory that `firn build`, `firn ipxe` or `firn kexec` made.
    ///
    /// # Errors
    ///
    /// A file that cannot be opened, or one that is no regular file.
    pub fn open(path: &Path) -> Result<Self> {
        if path.is_dir() {
            settle(path)?;
        }
        let path = match (path.join("initrd"), path.join("initrd.gz")) {
            _ if !path.is_dir() => path.into(),
            (initrd, kexec) if !initrd.exists() && kexec.exists() => kexec,
            (initrd, _) => initrd,
        };
        let file = file::open(&path, "a ramdisk or the directory of a build")?;
        let metadata = file.metadata().with_context(|| format!("looking at {}", path.display()))?;
        Ok(Self { path, bytes: metadata.len(), file })
    }

    /// Reads all of it.
    ///
    /// # Errors
    ///
    /// As [`read`], with the name of the file.
    pub fn walk(&self, visit: Visit) -> Result<Contents> {
        read(&self.file, visit).with_context(|| self.path.display().to_string())
    }

    /// The same with every member, of which the kernel makes files or not.
    ///
    /// # Errors
    ///
    /// As [`ramdisk::read`], with the name of the file.
    pub fn walk_all(&self, visit: Visit) -> Result<Contents> {
        ramdisk::read(&self.file, visit).and_then(checked).with_context(|| self.path.display().to_string())
    }
}

/// Reads a ramdisk to its end, or to where the kernel stops. `visit` gets the members of which the kernel makes files, and those that
/// are read in place; there are warnings about the others.
///
/// # Errors
///
/// A file that is no ramdisk; errors of reading; those of `visit`.
pub fn read(file: impl Read + Seek, visit: Visit) -> Result<Contents> {
    let contents = ramdisk::read(file, &mut |member, body| {
        let is_shown = member.fate.dropped.is_none() || is_read_in_place(&member.path);
        if is_shown { visit(member, body) } else { Ok(()) }
    })?;
    checked(contents)
}

/// Refuses a file without any segment. Removes the warnings about members that are read in place.
fn checked(mut contents: Contents) -> Result<Contents> {
    match &contents.stop {
        Some(stop) if contents.segments.is_empty() => bail!("{stop}"),
        None if contents.segments.is_empty() => bail!("the file is empty or has only zeros; give a ramdisk"),
        _ => {}
    }
    contents.warnings.retain(|warning| !warning.name.as_deref().is_some_and(is_read_in_place));
    Ok(contents)
}
