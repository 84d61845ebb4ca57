//! A ramdisk in a file, as the kernel unpacks it: the file, or sections of a unified kernel image.

use crate::contract::place::{is_read_early, marked};
use crate::formats::magic::{self, FileKind};
use crate::formats::newc::{Member, MemberKind};
use crate::formats::ramdisk;
pub use crate::formats::ramdisk::{Contents, Segment, Stop, Visit, Warning};
use crate::formats::window::{Piece, Window, length, offset_in_file};
use crate::host::file;
use crate::host::publication::ensure_settled;
use crate::inspect::uki::Uki;
use anyhow::{Context, Result, bail, ensure};
use std::collections::HashSet;
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

    /// The same with every member, of which the kernel makes files or not, and whether it is read in place.
    ///
    /// # Errors
    ///
    /// As [`ramdisk::read`], with the name of the file.
    pub fn walk_all(&self, visit: VisitAll) -> Result<Contents> {
        read_all(self.reader(), visit).with_context(|| self.path.display().to_string())
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
    read_all(file, &mut |member, is_read_in_place, body| {
        let is_shown = member.fate.dropped.is_none() || is_read_in_place;
        if is_shown { visit(member, body) } else { Ok(()) }
    })
}

/// Gets each member, whether it is read where it is in the ramdisk, and its contents.
pub type VisitAll<'a> = &'a mut dyn FnMut(&Member, bool, &mut dyn Read) -> Result<()>;

/// Reads a ramdisk with all its members. Refuses a file without any segment. There are no warnings about members that are read in place.
fn read_all(file: impl Read + Seek, visit: VisitAll) -> Result<Contents> {
    let mut in_place = InPlace::default();
    let mut contents = ramdisk::read(file, &mut |member, body| {
        let is_read_in_place = in_place.has(member);
        visit(member, is_read_in_place, body)
    })?;
    match &contents.stop {
        Some(stop) if contents.segments.is_empty() => bail!("{stop}"),
        None if contents.segments.is_empty() => bail!("the file is empty or has only zeros; give a ramdisk"),
        _ => {}
    }
    contents.warnings.retain(|warning| !warning.name.as_deref().is_some_and(|name| in_place.is_read(name)));
    Ok(contents)
}

/// The members that are read where they are in the ramdisk: early by the kernel, and by stage 1 the store images that have a mark.
#[derive(Default)]
struct InPlace {
    marked: HashSet<PathBuf>,
}

impl InPlace {
    /// Whether the next member is one.
    fn has(&mut self, member: &Member) -> bool {
        self.marked.extend(member.fate.place.as_deref().and_then(marked).map(Into::into));
        member.fate.dropped.is_some() && member.kind == MemberKind::File && self.is_read(&member.path)
    }

    fn is_read(&self, name: &Path) -> bool {
        is_read_early(name) || self.marked.contains(&Path::new("/").join(name))
    }
}
