//! A member of an archive: `do_header`, `do_name`, `do_symlink`, `do_copy` and `do_skip` in init/initramfs.c.

use crate::formats::newc::{Fate, HEADER, LONGEST_NAME, Member, MemberKind, TRAILER, padding};
use crate::formats::ramdisk::source::{ArchiveSource, up_to};
use crate::formats::ramdisk::{Contents, Offset, Stop, Visit};
use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// As many bytes of a name that is too long as are shown.
const SHOWN: u64 = 60;

/// The end of reading.
pub enum Halt {
    /// The kernel stops here.
    Stop(Stop),
    /// firn cannot read on, and the kernel may.
    Unreadable(String),
    /// The file cannot be read, or the visitor failed.
    Failed(anyhow::Error),
}

impl From<io::Error> for Halt {
    fn from(error: io::Error) -> Self {
        Self::Failed(error.into())
    }
}

impl Halt {
    /// An error of reading at this place. In a compressed segment it is that of the decompressor.
    pub fn of(at: Offset, error: io::Error) -> Self {
        let cause = error.get_ref().and_then(|error| error.downcast_ref::<liblzma::stream::Error>());
        match (at.within, cause) {
            (None, _) => error.into(),
            (_, Some(liblzma::stream::Error::MemLimit)) => {
                Self::Unreadable("it needs more memory than firn gives to a decompressor".into())
            }
            _ => at.stops(format!("\"decompressor failed\": {error}")),
        }
    }

    /// An archive that ends within one of its parts. Where it is not compressed, the kernel says nothing and is at the end.
    fn cut(at: Offset, part: &str) -> Self {
        let says = if at.within.is_some() { "\"junk at the end of compressed archive\": " } else { "" };
        at.stops(format!("{says}the archive ends within {part}"))
    }
}

/// The contents of a member, for a visitor.
struct Body<R> {
    source: io::Take<R>,
    /// The sum of the bytes, if the archive has it.
    sum: Option<u32>,
    error: Option<io::Error>,
}

impl<R: Read> Read for Body<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self.source.read(out) {
            Ok(bytes) => {
                if let Some(sum) = &mut self.sum {
                    let read = out.get(..bytes).unwrap_or_default();
                    *sum = read.iter().fold(*sum, |sum, byte| sum.wrapping_add((*byte).into()));
                }
                Ok(bytes)
            }
            Err(error) => {
                let kind = error.kind();
                self.error = Some(error);
                Err(kind.into())
            }
        }
    }
}

impl Contents {
    /// Reads a member and shows it. True if it is the trailer.
    pub(super) fn member(&mut self, source: &mut dyn ArchiveSource, visit: Visit) -> Result<bool, Halt> {
        let at = source.at();
        let failed = |error| Halt::of(at, error);
        let header = up_to(source, HEADER as u64).map_err(failed)?;
        let Ok(header) = <[u8; HEADER]>::try_from(header.as_slice()) else {
            return Err(Halt::cut(at, "a header"));
        };
        let (mut member, length) = match Member::as_the_kernel(&header) {
            None => return Err(at.stops(no_header(&header))),
            Some(Err(error)) => return Err(at.stops(format!("\"damaged header\": {error}"))),
            Some(Ok(header)) => header,
        };
        let name_bytes = u64::from(length) + padding(HEADER as u64 + u64::from(length));
        if let Some(reason) = skipped(&member, length) {
            let shown = up_to(source, SHOWN.min(length.into())).map_err(failed)?;
            let left = name_bytes - shown.len() as u64;
            self.warn(at, Some(&name_of(&shown)), reason);
            Self::skip(source, at, left + member.bytes, member.bytes)?;
            return Ok(false);
        }
        let name = up_to(source, name_bytes).map_err(failed)?;
        let text = name.get(..length as usize).unwrap_or(&name);
        let is_last = at.within.is_none() && name_of(text).as_os_str() == TRAILER;
        if (name.len() as u64) < name_bytes && !is_last {
            return Err(Halt::cut(at, "a name"));
        }
        if text.last() != Some(&0) {
            return Err(at.stops(format!("\"malformed archive\": the name {} has no NUL", shown(&name_of(text)))));
        }
        member.path = name_of(text);
        member.segment = self.segments.len().saturating_sub(1);
        member.offset = at.within.is_none().then(|| source.position());
        if member.kind != MemberKind::Symlink && member.path == Path::new(TRAILER) {
            self.tree.forget_links();
            Self::skip(source, at, member.bytes, member.bytes)?;
            return Ok(true);
        }
        self.body(source, at, member, visit)?;
        Ok(false)
    }

    /// Makes the file of a member, shows it, and goes on to the next one.
    fn body(
        &mut self,
        source: &mut dyn ArchiveSource,
        at: Offset,
        mut member: Member,
        visit: Visit,
    ) -> Result<(), Halt> {
        let mut target = Vec::new();
        if member.kind == MemberKind::Symlink {
            target = up_to(source, member.bytes).map_err(|error| Halt::of(at, error))?;
            if target.len() as u64 != member.bytes {
                return Err(Halt::cut(at, "a target"));
            }
            member.target = Some(name_of(&target));
        }
        let name = member.path.as_os_str().as_bytes().to_vec();
        let device = member.device;
        member.fate = self.tree.make(&name, &mut member, self.members);
        if let Fate { dropped: Some(reason), .. } = &member.fate {
            self.warn(at, Some(&member.path), reason.clone());
        } else if device != member.device {
            let reason = format!("the device is there already, and stays {}, {}", member.device.0, member.device.1);
            self.warn(at, Some(&member.path), reason);
            self.warnings.iter_mut().rev().take(1).for_each(|warning| warning.is_lost = false);
        }
        if let Some(reason) = self.tree.is_too_large() {
            return Err(Halt::Failed(anyhow::anyhow!(reason)));
        }
        self.members += 1;
        if let Some(segment) = self.segments.last_mut() {
            segment.members += 1;
        }
        if member.kind == MemberKind::Symlink {
            visit(&member, &mut target.as_slice()).map_err(Halt::Failed)?;
            return Self::pad(source, at, member.bytes);
        }
        // The kernel compares the checksum of a file that it makes.
        let checksum = member.checksum.filter(|_| member.fate.dropped.is_none() && member.kind == MemberKind::File);
        let source_of_body = (&mut *source).take(member.bytes);
        let mut body = Body { source: source_of_body, sum: checksum.map(|_| 0), error: None };
        let mut visited = visit(&member, &mut body);
        if visited.is_ok() && checksum.is_some() {
            visited = io::copy(&mut body, &mut io::sink()).map(drop).map_err(Into::into);
        }
        let (left, sum) = (body.source.limit(), body.sum);
        match (body.error, visited) {
            (Some(error), _) => return Err(Halt::of(at, error)),
            (None, visited) => visited.map_err(Halt::Failed)?,
        }
        Self::skip(source, at, left, member.bytes)?;
        if checksum != sum {
            return Err(at.stops(format!("\"bad data checksum\": that of {} differs", shown(&member.path))));
        }
        Ok(())
    }

    /// Skips the rest of a member with contents of this size, and its padding.
    fn skip(source: &mut dyn ArchiveSource, at: Offset, bytes: u64, size: u64) -> Result<(), Halt> {
        match source.skip(bytes) {
            Ok(()) => Self::pad(source, at, size),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(Halt::cut(at, "the contents of a member"))
            }
            Err(error) => Err(Halt::of(at, error)),
        }
    }

    /// Skips the padding. An archive that is not compressed may end without it.
    fn pad(source: &mut dyn ArchiveSource, at: Offset, size: u64) -> Result<(), Halt> {
        let padded = up_to(source, padding(size)).map_err(|error| Halt::of(at, error))?;
        if at.within.is_some() && (padded.len() as u64) < padding(size) {
            return Err(Halt::cut(at, "its padding"));
        }
        Ok(())
    }
}

/// The reason why the kernel skips a member without a look at its name.
fn skipped(member: &Member, name: u32) -> Option<String> {
    let bytes = member.bytes;
    if !(1..=LONGEST_NAME).contains(&name) {
        return Some(format!("its name has {name} bytes and the kernel accepts 1 to {LONGEST_NAME}"));
    }
    match member.kind {
        MemberKind::Symlink if bytes > LONGEST_NAME.into() => {
            Some(format!("its target has {bytes} bytes and the kernel accepts at most {LONGEST_NAME}"))
        }
        MemberKind::File | MemberKind::Symlink => None,
        _ if bytes > 0 => Some(format!("it is no regular file and has {bytes} bytes")),
        _ => None,
    }
}

/// The reason why these bytes are no header.
fn no_header(header: &[u8]) -> String {
    let start = header.get(..6).unwrap_or(header);
    if start == b"070707" {
        return "\"incorrect cpio method used: use -H newc option\"; pack it with cpio -o -H newc".into();
    }
    format!("\"no cpio magic\": expected a cpio header, found \"{}\"", start.escape_ascii())
}

/// A name up to its NUL.
fn name_of(bytes: &[u8]) -> PathBuf {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    OsString::from_vec(bytes.get(..end).unwrap_or_default().into()).into()
}

fn shown(name: &Path) -> String {
    let bytes = name.as_os_str().as_bytes();
    let short = usize::try_from(SHOWN).ok().and_then(|end| bytes.get(..end)).unwrap_or(bytes);
    crate::formats::printable::printable(Path::new(OsStr::from_bytes(short)))
}
