//! Ready-made segments of a ramdisk: each is read as the kernel will read it, behind those before it, and refused if the kernel would
//! leave out a part of it or stop there.

use crate::contract::place::{EARLY_DIRECTORIES, is_read_in_place};
use crate::contract::plan::{MAX_UNPACKED, PATH};
use crate::formats::compression::SegmentCompression;
use crate::formats::digest;
use crate::formats::newc::{Member, MemberKind};
use crate::formats::printable::printable;
use crate::formats::ramdisk::Contents;
use crate::host::file;
use crate::host::progress::Progress;
use anyhow::{Context, Result, bail, ensure};
use std::fs::File;
use std::io::{Cursor, Seek, Write};
use std::path::Path;

/// The command that makes an archive with all files of a directory, each directory before its files.
const RIGHT: &str = "find . -print0 | sort -z | cpio --null -o -H newc";

/// The ramdisk so far, as the kernel unpacks it.
#[derive(Debug, Default)]
pub struct AddedSegments {
    contents: Contents,
    /// Whether firn's own segment is in it.
    behind_firn: bool,
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
    /// Those of reading it, which cannot fail.
    pub fn add_own(&mut self, archive: &[u8]) -> Result<()> {
        self.behind_firn = true;
        self.contents.read(Cursor::new(archive), &mut |_, _| Ok(()))
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
        let (behind_firn, mut notes, mut large) = (self.behind_firn, Vec::new(), None);
        let packed_before =
            self.contents.segments.iter().any(|segment| segment.compression != SegmentCompression::None);
        self.contents.read(&file, &mut |member, _| {
            let name = printable(&member.path);
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
        let lost = self
            .contents
            .warnings
            .iter()
            .filter(|warning| warning.is_lost && !warning.name.as_deref().is_some_and(is_read_in_place));
        if let [first, rest @ ..] = lost.collect::<Vec<_>>().as_slice() {
            let more = if rest.is_empty() { String::new() } else { format!(", and so {} more", rest.len()) };
            bail!("{first}{more}{}", advice(&first.reason));
        }
        if let Some(name) = large {
            bail!(
                "{name} has more than the {MAX_UNPACKED} bytes that kernels such as 6.1 unpack of one file; leave it out"
            );
        }
        for note in notes {
            progress.say(&note);
        }
        let needs_end = added.last().is_some_and(|segment| segment.compression == SegmentCompression::Lz4);
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
