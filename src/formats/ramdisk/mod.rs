//! Ramdisks as the kernel unpacks them: segments one after the other, each an archive or a compressed stream of archives, with zeros
//! between them (Documentation/driver-api/early-userspace/buffer-format.rst; init/initramfs.c and lib/decompress*.c of Linux 6.12).
//!
//! It is a model of the kernel's state machine: it makes the same files in the same order, leaves out the same members, and ends
//! where the kernel ends. Where kernels from 6.1 on differ it follows the one that accepts the least. It reads a stream: contents
//! that nobody asks for are skipped where they are not compressed.

mod archive;
mod search;
mod source;
#[cfg(test)]
mod tests;
mod tree;

pub use tree::{Entry, Tree};

use crate::formats::compression::SegmentCompression;
use crate::formats::newc::{Member, lossy_or_none, padding};
use crate::formats::printable::printable;
use crate::formats::xz::Refusal;
use anyhow::{Result, anyhow};
use archive::Halt;
use serde::Serialize;
use source::{ArchiveSource, FileSource, START, StreamSource, skip_zeros};
use std::fmt;
use std::io::{BufRead, Read, Seek};
use std::path::{Path, PathBuf};

/// The most warnings that are kept. More are counted.
const MOST_WARNINGS: usize = 1000;

/// A segment of a ramdisk: an archive, or a compressed stream of archives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Segment {
    /// The offset in the file, bytes.
    pub offset: u64,
    /// Its size in the file, bytes.
    pub packed: u64,
    /// The size of the archives in it, bytes.
    pub unpacked: u64,
    /// Its compression.
    pub compression: SegmentCompression,
    /// The number of its members.
    pub members: usize,
}

/// A place in a ramdisk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Offset {
    /// The offset in the file, bytes: of the member, or of its segment if that is compressed.
    pub offset: u64,
    /// In a compressed segment: the offset in its unpacked bytes.
    pub within: Option<u64>,
}

/// Something that the kernel leaves out, or that firn cannot read. The kernel goes on after it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Warning {
    /// The place.
    #[serde(flatten)]
    pub at: Offset,
    /// The name of the member, if it is about one.
    #[serde(serialize_with = "lossy_or_none")]
    pub name: Option<PathBuf>,
    /// The reason, a part of a sentence.
    pub reason: String,
    /// Whether a file is missing in the machine.
    pub is_lost: bool,
}

/// The place where the kernel stops unpacking. Everything behind it is lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stop {
    /// The place.
    #[serde(flatten)]
    pub at: Offset,
    /// The reason, a part of a sentence.
    pub reason: String,
}

/// A function that gets each member in turn, with its contents. It need not read them. It gets those, too, of which the kernel makes
/// no file.
pub type Visit<'a> = &'a mut dyn FnMut(&Member, &mut dyn Read) -> Result<()>;

/// A ramdisk that was read to its end.
#[derive(Debug, Default)]
pub struct Contents {
    /// Its segments.
    pub segments: Vec<Segment>,
    /// The first warnings.
    pub warnings: Vec<Warning>,
    /// The number of warnings after them.
    pub more_warnings: usize,
    /// The place where the kernel stops, if it does not reach the end.
    pub stop: Option<Stop>,
    /// The files.
    pub tree: Tree,
    /// The number of members that were visited.
    members: usize,
    /// Whether the kernel has seen a member: from then on it skips zeros.
    started: bool,
}

/// Reads a ramdisk to its end, or to where the kernel stops.
///
/// # Errors
///
/// Those of reading the file; those of `visit`.
pub fn read(file: impl Read + Seek, visit: Visit) -> Result<Contents> {
    let mut contents = Contents::default();
    contents.read(file, visit)?;
    Ok(contents)
}

impl Contents {
    /// Reads one more file, as if it followed on a multiple of four.
    ///
    /// # Errors
    ///
    /// As [`read`].
    pub fn read(&mut self, file: impl Read + Seek, visit: Visit) -> Result<()> {
        match self.unpack(&mut FileSource::new(file)?, visit) {
            Ok(()) => Ok(()),
            Err(Halt::Stop(stop)) => {
                self.stop = Some(stop);
                Ok(())
            }
            Err(Halt::Unreadable(reason)) => Err(anyhow!("{reason}")),
            Err(Halt::Failed(error)) => Err(error),
        }
    }

    /// `unpack_to_rootfs`.
    fn unpack(&mut self, input: &mut FileSource<impl Read + Seek>, visit: Visit) -> Result<(), Halt> {
        // Whether the last bytes were a member that is not compressed, and whether its archive goes on.
        let (mut after_member, mut goes_on) = (false, false);
        loop {
            let before = input.position();
            if !skip_zeros(input)? {
                return Ok(());
            }
            let offset = input.position();
            let at = Offset { offset, within: None };
            let missing = padding(offset);
            if after_member && missing > 0 {
                return Err(at.stops(format!("\"broken padding\"; put {missing} zero bytes before it")));
            }
            let start = input.peek(START)?;
            if start.starts_with(b"0") && missing == 0 {
                if !goes_on || offset > before {
                    self.begin(offset, SegmentCompression::None);
                }
                let trailer = self.member(input, visit);
                self.end(input.position(), None);
                (after_member, goes_on) = (true, !trailer?);
            } else if let Some(compression) = SegmentCompression::as_the_kernel(&start) {
                self.begin(offset, compression);
                self.compressed(input, compression, visit)?;
                (after_member, goes_on) = (false, false);
            } else {
                return Err(at.stops(no_segment(&start, offset)));
            }
            self.started = true;
        }
    }

    /// Unpacks a compressed segment.
    fn compressed(
        &mut self,
        input: &mut FileSource<impl Read + Seek>,
        compression: SegmentCompression,
        visit: Visit,
    ) -> Result<(), Halt> {
        let at = Offset { offset: input.position(), within: None };
        let refusal = compression.refusal(input)?;
        input.go_to(at.offset)?;
        if let Some(Refusal { unpacked: 0, reason }) = refusal {
            return Err(at.stops(reason));
        }
        let (unpacked, result) = match compression.unpack(&mut *input) {
            Ok(stream) => {
                let mut stream = StreamSource::new(stream, at.offset, refusal);
                let result = self.archives(&mut stream, visit);
                (stream.position(), result)
            }
            Err(error) => (0, Err(Halt::Unreadable(format!("{error:#}")))),
        };
        self.end(input.position(), Some(unpacked));
        let unreadable = match result {
            Err(Halt::Unreadable(reason)) => reason,
            result => return result,
        };
        // The kernel may unpack it, and no file that comes after it can be told to lack its directory.
        self.tree.has_unknown_files();
        let next = search::next_segment(input)?;
        let goes_on = match next {
            Some(offset) => format!("goes on at offset {offset}, where the next segment seems to begin"),
            None => "finds no other segment after it".into(),
        };
        self.warn(at, None, format!("{unreadable}; firn knows no file of this segment and {goes_on}"));
        self.end(input.position(), None);
        Ok(())
    }

    /// Unpacks the archives of a compressed segment (`flush_buffer`).
    fn archives(&mut self, stream: &mut StreamSource, visit: Visit) -> Result<(), Halt> {
        if !self.started {
            // Nothing skips zeros before the first member of all.
            self.member(stream, visit)?;
        }
        loop {
            let more = skip_zeros(stream).map_err(|error| Halt::of(stream.at(), error))?;
            if !more {
                return Ok(());
            }
            let at = stream.at();
            let missing = padding(stream.position());
            if missing > 0 {
                return Err(at.stops(format!("\"broken padding\"; put {missing} zero bytes before it")));
            }
            let start = match stream.fill_buf() {
                Ok(start) => start,
                Err(error) => return Err(Halt::of(at, error)),
            };
            if !start.starts_with(b"0") {
                let start = start.get(..6).unwrap_or(start).escape_ascii();
                return Err(
                    at.stops(format!("\"junk within compressed archive\": expected a cpio header, found \"{start}\""))
                );
            }
            self.member(stream, visit)?;
        }
    }

    fn begin(&mut self, offset: u64, compression: SegmentCompression) {
        self.segments.push(Segment { offset, packed: 0, unpacked: 0, compression, members: 0 });
    }

    fn end(&mut self, position: u64, unpacked: Option<u64>) {
        if let Some(segment) = self.segments.last_mut() {
            segment.packed = position - segment.offset;
            segment.unpacked = match segment.compression {
                SegmentCompression::None => segment.packed,
                _ => unpacked.unwrap_or(segment.unpacked),
            };
        }
    }

    fn warn(&mut self, at: Offset, name: Option<&Path>, reason: String) {
        if self.warnings.len() < MOST_WARNINGS {
            self.warnings.push(Warning { at, name: name.map(Path::to_owned), reason, is_lost: true });
        } else {
            self.more_warnings += 1;
        }
    }
}

impl Offset {
    fn stops(self, reason: String) -> Halt {
        Halt::Stop(Stop { at: self, reason })
    }
}

/// The reason why no segment begins with these bytes.
fn no_segment(start: &[u8], offset: u64) -> String {
    let found = start.get(..6).unwrap_or(start);
    let reason = match found {
        [b'0', ..] => format!("put {} zero bytes before it, an archive begins at a multiple of four", padding(offset)),
        [0x04, 0x22, 0x4d, 0x18, ..] => {
            "it is a frame of lz4, of which the kernel knows the legacy kind only: lz4 -l".into()
        }
        [0xc7, 0x71, ..] | [0x71, 0xc7, ..] => {
            "it is a cpio archive of the old binary kind; pack it with cpio -o -H newc".into()
        }
        _ if offset == 0 => "is this file a ramdisk?".into(),
        _ => "is the file damaged, or was something appended that is no ramdisk?".into(),
    };
    format!(
        "\"invalid magic at start of compressed archive\": expected a cpio archive or a compressed segment, found \"{}\"; {reason}",
        found.escape_ascii()
    )
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.within {
            None => write!(f, "at offset {}", self.offset),
            Some(byte) => write!(f, "at byte {byte} of the unpacked segment at offset {}", self.offset),
        }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{}: the kernel makes no {}: {}", self.at, printable(name), self.reason),
            None => write!(f, "{}: {}", self.at, self.reason),
        }
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, the kernel stops unpacking the ramdisk: {}", self.at, self.reason)
    }
}
