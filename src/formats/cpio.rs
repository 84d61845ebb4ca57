//! Writes cpio archives of the "newc" kind, the kernel's initramfs format
//! (Documentation/driver-api/early-userspace/buffer-format.rst).
//!
//! No crate does it, because firn chooses the layout: alignment, order and every header field, so that the same input gives the
//! same bytes.

use crate::formats::digest::copy;
use crate::formats::magic::NEWC;
use crate::formats::newc::{LONGEST_NAME, TRAILER};
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::io::{self, Read, Write};

/// The largest member, bytes: its size is eight hexadecimal digits.
pub const MAX_MEMBER: u64 = u32::MAX as u64;

/// A segment of an initramfs starts on a multiple of this, and so does every header and every file in it.
pub const ALIGNMENT: u64 = 4;

/// The size of a header without the name that follows.
const HEADER: u64 = crate::formats::newc::HEADER as u64;

const MODE_DIRECTORY: u32 = 0o040_755;
const MODE_FILE: u32 = 0o100_000;
const MODE_SYMLINK: u32 = 0o120_777;
const MODE_CHARACTER_DEVICE: u32 = 0o020_000;

/// A file of any kind in a ramdisk.
#[derive(Debug, PartialEq, Eq)]
pub enum Node {
    /// A directory, mode 0755.
    Directory,
    /// A regular file.
    File {
        /// Permission bits.
        mode: u32,
        /// The whole file.
        contents: Vec<u8>,
    },
    /// A symbolic link.
    Symlink(String),
    /// A character device.
    CharacterDevice {
        /// Permission bits.
        mode: u32,
        /// Major device number.
        major: u32,
        /// Minor device number.
        minor: u32,
    },
}

/// A small ramdisk in memory, sorted by path: a directory comes before the files in it.
#[derive(Debug, Default)]
pub struct Tree(BTreeMap<String, Node>);

impl Tree {
    /// Puts a node at an absolute path, and directories above it.
    pub fn add(&mut self, path: &str, node: Node) {
        let path = path.trim_start_matches('/');
        let mut above = path;
        while let Some((directory, _)) = above.rsplit_once('/') {
            self.0.entry(directory.into()).or_insert(Node::Directory);
            above = directory;
        }
        self.0.insert(path.into(), node);
    }

    /// Writes the ramdisk as one archive.
    ///
    /// # Errors
    ///
    /// Those of `out`, and a file that is too large for the format.
    pub fn write(&self, out: impl Write) -> Result<()> {
        let mut archive = Archive::new(out);
        for (path, node) in &self.0 {
            match node {
                Node::Directory => archive.member(path, MODE_DIRECTORY, (0, 0), 0, io::empty())?,
                Node::File { mode, contents } => {
                    archive.member(path, MODE_FILE | mode, (0, 0), contents.len() as u64, contents.as_slice())?;
                }
                Node::Symlink(target) => {
                    archive.member(path, MODE_SYMLINK, (0, 0), target.len() as u64, target.as_bytes())?;
                }
                Node::CharacterDevice { mode, major, minor } => {
                    archive.member(path, MODE_CHARACTER_DEVICE | mode, (*major, *minor), 0, io::empty())?;
                }
            }
        }
        archive.finish()
    }
}

/// An archive that is being written.
pub struct Archive<W> {
    out: W,
    inode: u32,
    bytes: u64,
}

impl<W: Write> Archive<W> {
    /// An empty archive.
    pub fn new(out: W) -> Self {
        Self { out, inode: 0, bytes: 0 }
    }

    /// Adds a regular file, read from `contents`, `size` bytes long. With an alignment in bytes, the contents begin on a multiple of
    /// it from the start of the archive: NULs fill up the name, of which the kernel reads the part before them.
    ///
    /// # Errors
    ///
    /// Those of reading and writing, a file that is too large for the format, or one that ends early.
    pub fn file(
        &mut self,
        path: &str,
        mode: u32,
        alignment: Option<u64>,
        size: u64,
        contents: impl Read,
    ) -> Result<()> {
        let path = path.trim_start_matches('/');
        let name = path.len() as u64 + 1;
        let begin = self.bytes + HEADER + name;
        let missing = alignment.map_or(0, |alignment| begin.next_multiple_of(alignment) - begin);
        let filling = if name + missing <= LONGEST_NAME.into() { missing } else { 0 };
        self.inode += 1;
        let record = self.record(path, filling, self.inode, MODE_FILE | mode, (0, 0), size, contents);
        record.with_context(|| format!("packing {path}"))
    }

    /// Adds a member of root's, at time 0. Each gets its own inode: members with the same one are hard links to the kernel.
    fn member(&mut self, path: &str, mode: u32, device: (u32, u32), size: u64, contents: impl Read) -> Result<()> {
        self.inode += 1;
        self.record(path, 0, self.inode, mode, device, size, contents).with_context(|| format!("packing {path}"))
    }

    #[expect(clippy::too_many_arguments, reason = "a header has so many fields")]
    fn record(
        &mut self,
        name: &str,
        filling: u64,
        inode: u32,
        mode: u32,
        (major, minor): (u32, u32),
        size: u64,
        contents: impl Read,
    ) -> Result<()> {
        anyhow::ensure!(
            size <= MAX_MEMBER,
            "{size} bytes are more than the {MAX_MEMBER} that a member of a cpio archive can have"
        );
        let name_size = name.len() as u64 + 1 + filling;
        let (links, owner, group, time, device, check) = (1, 0, 0, 0, 0, 0);
        self.out.write_all(NEWC)?;
        write!(
            self.out,
            "{inode:08x}{mode:08x}{owner:08x}{group:08x}{links:08x}{time:08x}{size:08x}{device:08x}{device:08x}\
             {major:08x}{minor:08x}{name_size:08x}{check:08x}{name}\0"
        )?;
        io::copy(&mut io::repeat(0).take(filling), &mut self.out)?;
        let header = HEADER + name_size;
        self.out.write_all(padding(header))?;
        let copied = copy(contents.take(size), &mut self.out)?;
        anyhow::ensure!(copied == size, "the file ends after {copied} of {size} bytes");
        self.out.write_all(padding(size))?;
        self.bytes += header.next_multiple_of(ALIGNMENT) + size.next_multiple_of(ALIGNMENT);
        Ok(())
    }

    /// Ends the archive.
    ///
    /// # Errors
    ///
    /// Those of writing.
    pub fn finish(mut self) -> Result<()> {
        self.record(TRAILER, 0, 0, 0, (0, 0), 0, io::empty())
    }
}

/// The zeros that fill up `length` bytes to a multiple of [`ALIGNMENT`].
#[must_use]
pub fn padding(length: u64) -> &'static [u8] {
    match length % ALIGNMENT {
        1 => &[0; 3],
        2 => &[0; 2],
        3 => &[0; 1],
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    /// What GNU cpio makes of an archive.
    fn listed(archive: &[u8]) -> String {
        let mut cpio = Command::new("cpio")
            .args(["--list", "--verbose", "--numeric-uid-gid", "--quiet"])
            .env("TZ", "UTC")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        cpio.stdin.take().unwrap().write_all(archive).unwrap();
        let output = cpio.wait_with_output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    }

    fn file(size: u64, contents: &[u8], alignment: Option<u64>) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut archive = Archive::new(&mut bytes);
        archive.file("/x", 0o444, alignment, size, contents)?;
        archive.file("/directory/y", 0o444, alignment, 1, &b"y"[..])?;
        archive.finish()?;
        Ok(bytes)
    }

    #[test]
    fn contents_can_be_aligned() {
        for length in [0, 1, 4096, 5000] {
            let contents = vec![b'x'; length];
            let archive = file(length as u64, &contents, Some(4096)).unwrap();
            assert_eq!(&archive[4096..4096 + length], contents, "{length}");
            let second = (4096 + length + 200).next_multiple_of(4096);
            assert_eq!(archive[second], b'y', "{length}");
            assert!(listed(&archive).contains(" x\n") && listed(&archive).ends_with(" directory/y\n"), "{length}");
        }
    }

    #[test]
    fn a_foreign_reader_finds_every_member() {
        let mut tree = Tree::default();
        tree.add("/init", Node::File { mode: 0o755, contents: b"12345".to_vec() });
        tree.add("/dev/console", Node::CharacterDevice { mode: 0o600, major: 5, minor: 1 });
        tree.add("/a/b/c", Node::File { mode: 0o644, contents: Vec::new() });
        let mut archive = Vec::new();
        tree.write(&mut archive).unwrap();
        assert_eq!(archive.len() % 4, 0);
        let listed = listed(&archive);
        let lines: Vec<_> = listed.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(
            lines,
            [
                "drwxr-xr-x 1 0 0 0 Jan 1 1970 a",
                "drwxr-xr-x 1 0 0 0 Jan 1 1970 a/b",
                "-rw-r--r-- 1 0 0 0 Jan 1 1970 a/b/c",
                "drwxr-xr-x 1 0 0 0 Jan 1 1970 dev",
                "crw------- 1 0 0 5, 1 Jan 1 1970 dev/console",
                "-rwxr-xr-x 1 0 0 5 Jan 1 1970 init",
            ]
        );
    }

    #[test]
    fn files_of_any_length_are_padded() {
        for length in 0..9_u8 {
            let contents: Vec<u8> = (0..length).collect();
            let archive = file(length.into(), &contents, None).unwrap();
            assert_eq!(archive.len() % 4, 0, "{length}");
            assert!(listed(&archive).contains(&format!(" {length} Jan")), "{length}");
        }
    }

    #[test]
    fn members_that_do_not_fit_are_refused() {
        let error = file(MAX_MEMBER + 1, b"", None).unwrap_err();
        assert!(format!("{error:#}").contains("more than the 4294967295"), "{error:#}");
        let error = file(5, b"1234", None).unwrap_err();
        assert!(format!("{error:#}").contains("ends after 4 of 5"), "{error:#}");
    }
}
