//! A ramdisk in a file, as the kernel unpacks it: the file, or sections of a unified kernel image.

pub use crate::contract::place::is_read_in_place;
use crate::formats::magic::{self, FileKind};
use crate::formats::ramdisk;
pub use crate::formats::ramdisk::{Contents, Segment, Stop, Visit, Warning};
use crate::formats::window::{Piece, Window, length, offset_in_file};
use crate::host::file;
use crate::host::publication::ensure_settled;
use crate::inspect::uki::Uki;
use anyhow::{Context, Result, bail, ensure};
use std::fs::File;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};

/// A ramdisk in a file.
#[derive(Debug)]
pub struct Ramdisk {
    /// The path of the file.
    pub path: PathBuf,
    /// Its size, bytes.
    pub bytes: u64,
    file: File,
    /// The pieces of the file that it is made of.
    pieces: Vec<Piece>,
}

impl Ramdisk {
    /// Opens a file, the ramdisk in a unified kernel image, or the one in a directory that `firn build`, `firn ipxe` or `firn kexec` made.
    ///
    /// # Errors
    ///
    /// A file that cannot be opened, or one that is no regular file; a program without a ramdisk.
    pub fn open(path: &Path) -> Result<Self> {
        let is_directory = path.is_dir();
        if is_directory {
            ensure_settled(path)?;
        }
        let path = match (path.join("initrd"), path.join("initrd.gz")) {
            _ if !is_directory => path.into(),
            (initrd, kexec) if !initrd.exists() && kexec.exists() => kexec,
            (initrd, _) => initrd,
        };
        let file = file::open(&path, "a ramdisk or the directory of a build")?;
        let pieces = pieces(&file, is_directory).with_context(|| path.display().to_string())?;
        Ok(Self { path, bytes: length(&pieces), file, pieces })
    }

    /// The offset in the file of a byte of the ramdisk, for those who read the file and not the ramdisk.
    #[must_use]
    pub fn offset_in_file(&self, offset: u64) -> Option<u64> {
        offset_in_file(&self.pieces, offset)
    }

    fn reader(&self) -> Window<'_, &File> {
        Window::new(&self.file, &self.pieces)
    }

    /// Reads all of it.
    ///
    /// # Errors
    ///
    /// As [`read`], with the name of the file.
    pub fn walk(&self, visit: Visit) -> Result<Contents> {
        read(self.reader(), visit).with_context(|| self.path.display().to_string())
    }

    /// The same with every member, of which the kernel makes files or not.
    ///
    /// # Errors
    ///
    /// As [`ramdisk::read`], with the name of the file.
    pub fn walk_all(&self, visit: Visit) -> Result<Contents> {
        ramdisk::read(self.reader(), visit).and_then(checked).with_context(|| self.path.display().to_string())
    }
}

/// The pieces of a file that are a ramdisk.
fn pieces(file: &File, is_of_build: bool) -> Result<Vec<Piece>> {
    let whole = vec![Piece { offset: 0, bytes: file.metadata()?.len(), zeros: 0 }];
    let mut start = Vec::new();
    file.take(magic::LENGTH).read_to_end(&mut start)?;
    match magic::recognize(&start) {
        Some(FileKind::Kernel) if !is_of_build => bail!("it is a kernel; give a ramdisk, or a unified kernel image"),
        Some(FileKind::EfiProgram) if !is_of_build => {
            let uki = Uki::read(file)?;
            ensure!(
                !uki.ramdisk.is_empty(),
                "it is a unified kernel image without a ramdisk (section .initrd); `firn inspect` shows its other sections"
            );
            Ok(uki.ramdisk)
        }
        _ => Ok(whole),
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
