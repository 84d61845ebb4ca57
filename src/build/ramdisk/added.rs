//! Ready-made segments of a ramdisk: each is read as the kernel will read it, behind those before it, and refused if the kernel would
//! leave out a part of it or stop there.

use crate::build::ramdisk::own_files::{self, OwnFiles};
use crate::contract::place::{EARLY_DIRECTORIES, is_read_early};
use crate::contract::plan::{Image, MAX_UNPACKED, PATH};
use crate::formats::compression::SegmentCompression;
use crate::formats::digest;
use crate::formats::newc::{Member, MemberKind};
use crate::formats::printable::printable;
use crate::formats::ramdisk::Contents;
use crate::host::file;
use crate::host::progress::Progress;
use anyhow::{Context, Result, bail, ensure};
use std::fs::File;
use std::io::{Seek, Write};
use std::path::{Path, PathBuf};

/// The command that makes an archive with all files of a directory, each directory before its files.
const RIGHT: &str = "find . -print0 | sort -z | cpio --null -o -H newc";

/// The ramdisk so far, as the kernel unpacks it.
#[derive(Debug, Default)]
pub struct AddedSegments {
    contents: Contents,
    /// The files of firn's own segment, if that is in it.
    own: Option<OwnFiles>,
    /// The ready-made segments in it.
    given: Vec<PathBuf>,
}

/// A segment that the kernel takes.
#[derive(Debug)]
pub struct AddedSegment {
    file: File,
    bytes: u64,
    sha256: String,
    /// Whether a block of size zero has to end it: a frame of lz4 has no end of its own.
    pub needs_end: bool,
}

impl AddedSegments {
    /// Adds firn's own segment, an archive.
    ///
    /// # Errors
    ///
    /// A file of firn that the kernel does not make, because a segment before it is in the way.
    pub fn add_own(&mut self, archive: &[u8]) -> Result<()> {
        let own = OwnFiles::add(archive, &mut self.contents).with_context(|| self.adding())?;
        self.own = Some(own);
        Ok(())
    }

    /// Makes sure that the kernel can unpack the store images behind all of these segments.
    ///
    /// # Errors
    ///
    /// An image that the kernel does not make, because a segment before it is in the way.
    pub fn check_images(&mut self, images: &[Image]) -> Result<()> {
        OwnFiles::check_images(images, &mut self.contents).with_context(|| self.adding())
    }

    fn adding(&self) -> String {
        let given: Vec<_> = self.given.iter().map(|path| path.display().to_string()).collect();
        format!("adding {} to the ramdisk", given.join(", "))
    }

    /// Opens a segment, and reads all of it as the kernel does.
    ///
    /// # Errors
    ///
    /// A file that cannot be read or is no regular file; a segment that the kernel does not take, or of which it leaves out a part.
    pub fn add(&mut self, path: &Path, progress: Progress) -> Result<AddedSegment> {
        let mut file = file::open(path, "a ramdisk")?;
        let (bytes, sha256) = digest::sha256(&file)?;
        file.rewind()?;
        let before = self.contents.segments.len();
        self.contents.warnings.clear();
        let (behind_firn, mut notes, mut large) = (self.own.is_some(), Vec::new(), None);
        let mut plan = None;
        let packed_before =
            self.contents.segments.iter().any(|segment| segment.compression != SegmentCompression::None);
        self.contents.read(&file, &mut |member, contents| {
            let name = printable(&member.path);
            if member.kind == MemberKind::File && member.fate.place.as_deref() == Some(Path::new(PATH)) {
                plan = Some(own_files::read_plan(contents)?);
            }
            if behind_firn && replaces_firn(member) {
                notes.push(format!("{}: its {name} takes the place of firn's", path.display()));
            }
            if is_early(member) && (behind_firn || packed_before || member.offset.is_none()) {
                notes.push(format!(
                    "{}: the kernel does not find {name}, which it searches in archives at the front that are not compressed; \
                     give it with --prepend, before all compressed segments",
                    path.display()
                ));
            }
            if member.kind == MemberKind::File && member.bytes > MAX_UNPACKED && member.fate.place.is_some() {
                large = Some(name);
            }
            Ok(())
        })?;
        if let Some(stop) = &self.contents.stop {
            bail!("{stop}{}", advice(&stop.reason));
        }
        let added = self.contents.segments.get(before..).unwrap_or_default();
        ensure!(!added.is_empty(), "it is empty or has only zeros; leave it out, or make it with {RIGHT}");
        let needs_end = added.last().is_some_and(|segment| segment.compression == SegmentCompression::Lz4);
        let lost = self
            .contents
            .warnings
            .iter()
            .filter(|warning| warning.is_lost && !warning.name.as_deref().is_some_and(is_read_early));
        if let [first, rest @ ..] = lost.collect::<Vec<_>>().as_slice() {
            let more = if rest.is_empty() { String::new() } else { format!(", and so {} more", rest.len()) };
            bail!("{first}{more}{}", advice(&first.reason));
        }
        if let Some(own) = &self.own {
            own.check(plan.as_deref(), &mut self.contents)?;
        }
        if let Some(name) = large {
            bail!(
                "{name} has more than the {MAX_UNPACKED} bytes that kernels such as 6.1 unpack of one file; leave it out"
            );
        }
        for note in notes {
            progress.say(&note);
        }
        self.given.push(path.into());
        Ok(AddedSegment { file, bytes, sha256, needs_end })
    }
}

impl AddedSegment {
    /// Copies the file.
    ///
    /// # Errors
    ///
    /// Those of reading and writing, and a file that is not the one that was read before.
    pub fn copy(mut self, out: &mut impl Write) -> Result<()> {
        self.file.rewind()?;
        let mut writer = digest::Writer::new(out);
        digest::copy(&self.file, &mut writer).context("copying it")?;
        let (_, bytes, sha256) = writer.finish();
        let same = (bytes, &sha256) == (self.bytes, &self.sha256);
        ensure!(same, "it changed while it was packed; build again when the program that writes it is done");
        Ok(())
    }
}

/// The next step for a reason that names none.
fn advice(reason: &str) -> String {
    if reason.contains("pack it with") || reason.contains("lz4 -l") {
        return String::new();
    }
    let bad_order = reason.contains("does not exist");
    if reason.contains("does not unpack") || reason.contains("needs more memory") {
        return "; firn adds only segments that it can read: compress it with zstd or gzip".into();
    }
    let why = if bad_order { "pack each directory before its files" } else { "make it anew" };
    format!("; {why}: {RIGHT}")
}

fn replaces_firn(member: &Member) -> bool {
    ["/init", PATH].iter().any(|path| member.fate.place.as_deref() == Some(Path::new(path)))
}

/// Whether the kernel reads the member before it unpacks the ramdisk.
fn is_early(member: &Member) -> bool {
    member.kind == MemberKind::File
        && EARLY_DIRECTORIES.iter().any(|directory| Path::new("/").join(&member.path).starts_with(directory))
}

#[cfg(test)]
mod tests;
