//! A ramdisk: segments one after the other, each an archive or a compressed stream of archives, with zeros between them
//! (Documentation/driver-api/early-userspace/buffer-format.rst; `unpack_to_rootfs` in init/initramfs.c of Linux 6.12).
//!
//! It is read as a stream. Contents that nobody asks for are skipped where they are not compressed.

use crate::formats::compression::SegmentCompression;
use crate::formats::newc::{self, HEADER, Member, MemberKind, TRAILER, padding};
use crate::host::publication::settle;
use crate::inspect::source::{ArchiveSource, FileSource, StreamSource, skip_zeros, up_to};
use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

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

/// A function that gets each member in turn, with its contents. It need not read them.
pub type Visit<'a> = &'a mut dyn FnMut(&Member, &mut dyn Read) -> Result<()>;

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
        let file = File::open(&path).with_context(|| {
            format!("opening the ramdisk {}; give a ramdisk or the directory of a build", path.display())
        })?;
        let metadata = file.metadata().with_context(|| format!("looking at {}", path.display()))?;
        ensure!(metadata.is_file(), "{} is no regular file; copy the ramdisk into a file", path.display());
        Ok(Self { path, bytes: metadata.len(), file })
    }

    /// Reads all of it.
    ///
    /// # Errors
    ///
    /// As [`read`], with the name of the file.
    pub fn walk(&self, visit: Visit) -> Result<Vec<Segment>> {
        read(&self.file, visit).with_context(|| self.path.display().to_string())
    }
}

/// Reads a ramdisk to its end.
///
/// # Errors
///
/// A segment that the kernel would not unpack, with its offset; errors of reading; those of `visit`.
pub fn read(file: impl Read + Seek, visit: Visit) -> Result<Vec<Segment>> {
    let mut input = FileSource::new(file)?;
    let mut segments = Vec::new();
    loop {
        if !skip_zeros(&mut input)? {
            ensure!(!segments.is_empty(), "the file is empty or has only zeros; give a ramdisk");
            return Ok(segments);
        }
        let number = segments.len();
        segments.push(segment(&mut input, number, visit)?);
    }
}

/// Reads the segment that begins here.
fn segment(input: &mut FileSource<impl Read + Seek>, number: usize, visit: Visit) -> Result<Segment> {
    let offset = input.position();
    let start = input.peek()?;
    let Some(compression) = SegmentCompression::of(&start) else {
        bail!(
            "at offset {offset}: expected a cpio archive or a compressed segment, found \"{}\"; {}",
            start.escape_ascii(),
            if number == 0 {
                "is this file a ramdisk?"
            } else {
                "is the file damaged, or was something appended that is no ramdisk?"
            }
        )
    };
    let here = || format!("in the segment at offset {offset} (compression: {compression})");
    let (members, unpacked) = if compression == SegmentCompression::None {
        ensure!(
            padding(offset) == 0,
            "at offset {offset}: a cpio archive begins, and the kernel expects it at a multiple of four; put {} zero bytes before it",
            padding(offset)
        );
        (archive(input, number, visit).with_context(here)?, input.position() - offset)
    } else {
        let mut unpacked = StreamSource::new(compression.unpack(&mut *input).with_context(here)?);
        let mut members = 0;
        while skip_zeros(&mut unpacked).with_context(here)? {
            members += archive(&mut unpacked, number, visit).with_context(here)?;
        }
        (members, unpacked.position())
    };
    Ok(Segment { offset, packed: input.position() - offset, unpacked, compression, members })
}

/// Reads an archive up to its trailer, or to the end of the source. Returns the number of its members.
fn archive(source: &mut dyn ArchiveSource, segment: usize, visit: Visit) -> Result<usize> {
    let start = source.position();
    let mut members = 0;
    loop {
        let place = source.position() - start;
        let Some(mut member) =
            next(source).with_context(|| format!("member {members}, at byte {place} of the archive"))?
        else {
            return Ok(members);
        };
        (member.segment, member.inode.archive, member.offset) = (segment, start, source.offset());
        let here = format!("member {members}, {}, at byte {place} of the archive", member.path.display());
        contents(source, &mut member, visit).context(here)?;
        members += 1;
    }
}

/// Reads the header and the name of a member. None at the end of the archive.
fn next(source: &mut dyn ArchiveSource) -> Result<Option<Member>> {
    let header = up_to(source, HEADER as u64)?;
    if header.is_empty() {
        return Ok(None);
    }
    let header = header.as_slice().try_into().ok().context("the archive ends within its header")?;
    let (mut member, length) = Member::of_header(header)?;
    let name = up_to(source, length.into())?;
    ensure!(name.len() as u64 == u64::from(length), "the archive ends within its name");
    member.path = newc::name(name)?;
    // The file may end without padding.
    up_to(source, padding(HEADER as u64 + u64::from(length)))?;
    if member.path == Path::new(TRAILER) {
        return Ok(None);
    }
    Ok(Some(member))
}

/// Shows a member to `visit` and goes on to where the next one begins.
fn contents(source: &mut dyn ArchiveSource, member: &mut Member, visit: Visit) -> Result<()> {
    let mut left = 0;
    if member.kind == MemberKind::Symlink {
        let target = up_to(source, member.bytes)?;
        ensure!(target.len() as u64 == member.bytes, "the archive ends within its target");
        member.target = Some(OsString::from_vec(target.clone()).into());
        visit(member, &mut target.as_slice())?;
    } else {
        let mut contents = source.take(member.bytes);
        visit(member, &mut contents)?;
        left = contents.limit();
    }
    source.skip(left + padding(member.bytes)).context("the archive ends within its contents")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::cpio::{Archive, Node, Tree};
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::io::{Cursor, Write as _};
    use std::process::{Command, Stdio};

    /// What a tool makes of an input.
    fn piped(command: &str, input: &[u8]) -> Vec<u8> {
        let mut child = Command::new("sh");
        let mut child = child.args(["-c", command]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        let writer = std::thread::spawn(move || stdin.write_all(&input));
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap().unwrap();
        assert!(output.status.success(), "{command}");
        output.stdout
    }

    fn file(path: &str, contents: &[u8]) -> Vec<u8> {
        let mut archive = Vec::new();
        let mut members = Archive::new(&mut archive);
        members.file(path, 0o644, None, contents.len() as u64, contents).unwrap();
        members.finish().unwrap();
        archive
    }

    /// Paths and contents of the members, in order.
    type Members = Vec<(String, Vec<u8>)>;

    fn members(ramdisk: &[u8]) -> Result<(Vec<Segment>, Members)> {
        let mut members = Vec::new();
        let segments = read(Cursor::new(ramdisk), &mut |member, contents| {
            let mut bytes = Vec::new();
            contents.read_to_end(&mut bytes)?;
            if let Some(offset) = member.offset {
                assert_eq!(ramdisk[usize::try_from(offset)?..][..bytes.len()], bytes);
            }
            members.push((member.path.display().to_string(), bytes));
            Ok(())
        })?;
        Ok((segments, members))
    }

    #[test]
    fn every_compression_between_two_archives() {
        let large = vec![7; 100_000];
        let (first, middle, last) = (file("a", b"1"), file("b", &large), file("c", b"3"));
        for (tool, compression) in [
            ("cat", SegmentCompression::None),
            ("gzip", SegmentCompression::Gzip),
            ("xz --check=crc32 --lzma2=dict=1MiB", SegmentCompression::Xz),
            ("xz --format=lzma", SegmentCompression::Lzma),
            ("zstd -19", SegmentCompression::Zstd),
            ("lz4 -l", SegmentCompression::Lz4),
        ] {
            let packed = piped(tool, &middle);
            // Zeros end a frame of lz4, which has no end of its own; the others do without.
            for zeros in [4, 8, 12, 70_000] {
                let mut ramdisk = [&first[..], &packed, &vec![0; zeros]].concat();
                ramdisk.resize(ramdisk.len().next_multiple_of(4), 0);
                ramdisk.extend(&last);
                let (segments, members) = members(&ramdisk).unwrap();
                let names: Vec<_> = members.iter().map(|(path, _)| path.as_str()).collect();
                assert_eq!(names, ["a", "b", "c"], "{tool}");
                assert_eq!(members[1].1, large);
                assert_eq!(segments[1].compression, compression);
                assert_eq!((segments[1].offset, segments[1].members), (first.len() as u64, 1));
                let length = packed.len() as u64 + if compression == SegmentCompression::Lz4 { 4 } else { 0 };
                assert_eq!(segments[1].packed, length, "{tool}");
                assert_eq!(segments[1].unpacked, middle.len() as u64);
            }
        }
    }

    #[test]
    fn archives_in_one_stream() {
        let zeros = [0; 512];
        let packed = piped("gzip", &[&file("a", b"1")[..], &zeros, &file("b", b"2"), &zeros].concat());
        let (segments, members) = members(&packed).unwrap();
        assert_eq!((segments.len(), segments[0].members, members.len()), (1, 2, 2));
        // Another stream is another segment, with zeros between or without.
        assert_eq!(super::tests::members(&[&packed[..], &packed].concat()).unwrap().0.len(), 2);
    }

    #[test]
    fn what_gnu_cpio_writes() {
        let directory = tempfile::tempdir().unwrap();
        let script = "mkdir d && echo x > d/one && ln d/one d/two && ln -s one d/link && mkfifo pipe && \
                      find . -mindepth 1 | sort | cpio --create --format=newc --quiet";
        let output = Command::new("sh").args(["-euc", script]).current_dir(&directory).output().unwrap();
        let mut lines = Vec::new();
        let segments = read(Cursor::new(output.stdout), &mut |member, _| {
            lines.push(format!("{} {} {}", &member.mode_letters()[..1], member.links, member.path.display()));
            assert_eq!(member.target.as_deref(), (member.kind == MemberKind::Symlink).then_some(Path::new("one")));
            Ok(())
        });
        assert_eq!(lines, ["d 2 d", "l 1 d/link", "- 2 d/one", "- 2 d/two", "p 1 pipe"]);
        assert_eq!(segments.unwrap()[0].members, 5);
    }

    #[test]
    fn what_the_kernel_would_not_unpack() {
        let archive = file("a", b"12345");
        let zstd = piped("zstd", &archive);
        let bad = |bytes: &[u8], expected: &str| {
            let error = format!("{:#}", members(bytes).expect_err(expected));
            assert!(error.contains(expected), "no {expected:?} in: {error}");
        };
        bad(b"", "has only zeros");
        bad(&[0; 4096], "has only zeros");
        bad(
            b"#!/bin/sh\n",
            "at offset 0: expected a cpio archive or a compressed segment, found \"#!/bin\"; is this file a ramdisk?",
        );
        bad(&[&archive[..], b"junk"].concat(), "was something appended");
        bad(&[b"\0", &archive[..]].concat(), "at offset 1: a cpio archive begins");
        bad(&archive[..50], "member 0, at byte 0 of the archive: the archive ends within its header");
        bad(&archive[..111], "ends within its name");
        bad(&archive[..114], "member 0, a, at byte 0 of the archive: the archive ends within its contents");
        bad(&zstd[..zstd.len() - 1], "in the segment at offset 0 (compression: zstd)");
        bad(b"BZh91AY&SY", "bzip2, which firn does not unpack");
        bad(&piped("gzip", &[b'x'; 110]), "expected a cpio header, found");
    }

    #[test]
    fn an_archive_needs_no_trailer() {
        let archive = file("a", b"12345678");
        assert_eq!(members(&archive[..112 + 8]).unwrap().1, [("a".into(), b"12345678".to_vec())]);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            files in prop::collection::btree_map("[a-z]{1,5}(/[A-Z]{1,3}){0,2}", prop::collection::vec(any::<u8>(), 0..50), 0..9),
            compressed in any::<bool>(),
        ) {
            let mut tree = Tree::default();
            for (path, contents) in &files {
                tree.add(path, Node::File { mode: 0o644, contents: contents.clone() });
            }
            let mut archive = Vec::new();
            tree.write(&mut archive).unwrap();
            let ramdisk = if compressed { zstd::encode_all(archive.as_slice(), 1).unwrap() } else { archive };
            let mut read_back = BTreeMap::new();
            read(Cursor::new(ramdisk), &mut |member, contents| {
                let mut bytes = Vec::new();
                contents.read_to_end(&mut bytes)?;
                if member.kind == MemberKind::File {
                    read_back.insert(member.path.to_str().unwrap().to_owned(), bytes);
                }
                Ok(())
            }).unwrap();
            prop_assert_eq!(read_back, files);
        }

        #[test]
        fn a_damaged_ramdisk_is_no_panic(place in 0..400_usize, byte in any::<u8>(), cut in 0..400_usize) {
            let mut ramdisk = [file("a", b"12345"), zstd::encode_all(file("b", b"678").as_slice(), 1).unwrap()].concat();
            let place = place % ramdisk.len();
            ramdisk[place] = byte;
            ramdisk.truncate(cut);
            drop(members(&ramdisk));
        }
    }
}
