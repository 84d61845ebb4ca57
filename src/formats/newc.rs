//! A member of a cpio archive of the "newc" kind, as the kernel reads it (Documentation/driver-api/early-userspace/buffer-format.rst,
//! init/initramfs.c of Linux 6.12).

use crate::formats::magic::{NEWC, NEWC_WITH_CHECKSUM};
use anyhow::{Context, Result, bail, ensure};
use serde::{Serialize, Serializer};
use std::ffi::OsString;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// The size of a header: a magic number, then 13 numbers of eight hexadecimal digits.
pub const HEADER: usize = 110;

/// A page of memory, bytes: the contents of a member can begin on a multiple of it.
pub const PAGE: u64 = 4096;

/// The kernel leaves out members with a longer name or target (`PATH_MAX`).
pub const LONGEST_NAME: u32 = 4096;

/// The name of the member that ends an archive.
pub const TRAILER: &str = "TRAILER!!!";

/// Bits of the mode that are the type of a file (inode(7)).
const TYPE: u32 = 0o170_000;

/// The type of the file that a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum MemberKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link; its contents are the target.
    Symlink,
    /// A device node.
    CharacterDevice,
    /// A device node.
    BlockDevice,
    /// A named pipe.
    Pipe,
    /// A socket.
    Socket,
    /// Another type, of which the kernel makes no file.
    Unknown,
}

/// The file that the kernel makes of a member.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Fate {
    /// Its path, absolute and without symbolic links; none if the kernel makes no file.
    #[serde(serialize_with = "lossy_or_none")]
    pub place: Option<PathBuf>,
    /// The reason why the kernel makes no file.
    pub dropped: Option<String>,
    /// The path of an earlier file that the kernel removes before.
    #[serde(skip)]
    pub removes: Option<PathBuf>,
    /// The path of a file that gets a second name, and this name.
    #[serde(skip)]
    pub link: Option<(PathBuf, PathBuf)>,
}

/// A member of an archive, without its contents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Member {
    /// Its name in the archive, up to the first NUL.
    #[serde(serialize_with = "lossy")]
    pub path: PathBuf,
    /// Its type.
    pub kind: MemberKind,
    /// Type and permission bits.
    pub mode: u32,
    /// Number of the owner.
    pub user: u32,
    /// Number of the group.
    pub group: u32,
    /// The number of members of the archive that are this file.
    pub links: u32,
    /// Seconds since 1970.
    pub time: u32,
    /// Size of the contents, bytes.
    pub bytes: u64,
    /// For device nodes: major and minor number.
    pub device: (u32, u32),
    /// The number of its inode, and the major and minor number of its device, on the machine that packed it. Members with several
    /// links and the same identity are one file.
    #[serde(skip)]
    pub inode: (u32, u32, u32),
    /// The sum of the bytes of the contents, in archives that have it.
    #[serde(skip)]
    pub checksum: Option<u32>,
    /// The number of its segment in the ramdisk, from 0.
    pub segment: usize,
    /// The offset of its contents in the file, bytes; none in a compressed segment.
    pub offset: Option<u64>,
    /// The target of a symbolic link.
    #[serde(serialize_with = "lossy_or_none")]
    pub target: Option<PathBuf>,
    /// The file that the kernel makes of it, if this is known.
    #[serde(flatten)]
    pub fate: Fate,
}

impl Member {
    /// Reads a header. Returns the member without its name, and the length of the name with its NUL, bytes.
    ///
    /// # Errors
    ///
    /// Bytes that are no header, or a name or target that is empty or longer than the kernel accepts.
    pub fn of_header(header: &[u8; HEADER]) -> Result<(Self, u32)> {
        let (magic, digits) = header.split_at(6);
        // The checksum that the second one has is not compared.
        ensure!(
            magic == NEWC || magic == NEWC_WITH_CHECKSUM,
            "expected a cpio header, found \"{}\"",
            magic.escape_ascii()
        );
        let (member, name) = Self::of_numbers(numbers(digits)?, None);
        ensure!(
            (1..=LONGEST_NAME).contains(&name),
            "the name has {name} bytes and the kernel accepts 1 to {LONGEST_NAME}"
        );
        ensure!(
            member.kind != MemberKind::Symlink || member.bytes <= LONGEST_NAME.into(),
            "the target of a symbolic link has {} bytes and the kernel accepts at most {LONGEST_NAME}",
            member.bytes
        );
        Ok((member, name))
    }

    /// Reads a header as the kernel does (`do_header`, `parse_header`). Returns none for other bytes, and the member without its name
    /// and the length of the name with its NUL, bytes, which may be too long for the kernel.
    ///
    /// # Errors
    ///
    /// Fields that are no hexadecimal numbers: Linux 7.3 stops there, and 6.12 reads another number.
    #[cfg(feature = "builder")]
    #[must_use]
    pub fn as_the_kernel(header: &[u8; HEADER]) -> Option<Result<(Self, u32)>> {
        let (magic, digits) = header.split_at(6);
        let with_checksum = magic == NEWC_WITH_CHECKSUM;
        if magic != NEWC && !with_checksum {
            return None;
        }
        Some(numbers(digits).map(|fields| {
            let [.., checksum] = fields;
            Self::of_numbers(fields, with_checksum.then_some(checksum))
        }))
    }

    fn of_numbers(numbers: [u32; 13], checksum: Option<u32>) -> (Self, u32) {
        let [inode, mode, user, group, links, time, bytes, on_major, on_minor, major, minor, name, _] = numbers;
        let member = Self {
            path: PathBuf::new(),
            kind: MemberKind::of(mode),
            mode,
            user,
            group,
            links,
            time,
            bytes: bytes.into(),
            device: (major, minor),
            inode: (inode, on_major, on_minor),
            checksum,
            segment: 0,
            offset: None,
            target: None,
            fate: Fate::default(),
        };
        (member, name)
    }

    /// Whether `path` is the path of the file that the kernel makes of this member, or its name. A slash or `./` before either does
    /// not matter.
    #[must_use]
    pub fn is_at(&self, path: &Path) -> bool {
        without_root(self.fate.place.as_deref().unwrap_or(&self.path)) == without_root(path)
    }

    /// The mode as `ls -l` shows it.
    #[must_use]
    pub fn mode_letters(&self) -> String {
        let kind = match self.kind {
            MemberKind::File => '-',
            MemberKind::Directory => 'd',
            MemberKind::Symlink => 'l',
            MemberKind::CharacterDevice => 'c',
            MemberKind::BlockDevice => 'b',
            MemberKind::Pipe => 'p',
            MemberKind::Socket => 's',
            MemberKind::Unknown => '?',
        };
        let mut letters = String::from(kind);
        // Set-user-ID, set-group-ID and sticky replace the x by a small letter, and a missing x by a capital.
        for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
            let has = |bits: u32| self.mode & bits != 0;
            letters.push(if has(0o4 << shift) { 'r' } else { '-' });
            letters.push(if has(0o2 << shift) { 'w' } else { '-' });
            letters.push(match (has(0o1 << shift), has(special)) {
                (true, false) => 'x',
                (false, false) => '-',
                (true, true) => letter,
                (false, true) => letter.to_ascii_uppercase(),
            });
        }
        letters
    }
}

impl MemberKind {
    fn of(mode: u32) -> Self {
        match mode & TYPE {
            0o100_000 => Self::File,
            0o040_000 => Self::Directory,
            0o120_000 => Self::Symlink,
            0o020_000 => Self::CharacterDevice,
            0o060_000 => Self::BlockDevice,
            0o010_000 => Self::Pipe,
            0o140_000 => Self::Socket,
            _ => Self::Unknown,
        }
    }
}

/// Reads the name of a member, up to the first NUL.
///
/// # Errors
///
/// A name without a NUL, or an empty one.
pub fn name(mut bytes: Vec<u8>) -> Result<PathBuf> {
    let end = bytes.iter().position(|byte| *byte == 0).context("the name has no NUL at its end")?;
    ensure!(end > 0, "the name is empty");
    bytes.truncate(end);
    Ok(OsString::from_vec(bytes).into())
}

/// The name of the member at an offset of a ramdisk, absolute. None if no member begins there.
///
/// # Errors
///
/// Those of reading.
pub fn name_at(ramdisk: &mut (impl Read + Seek), offset: u64) -> io::Result<Option<PathBuf>> {
    if offset >= ramdisk.seek(SeekFrom::End(0))? {
        return Ok(None);
    }
    ramdisk.seek(SeekFrom::Start(offset))?;
    let mut start = Vec::new();
    ramdisk.take(HEADER as u64 + u64::from(LONGEST_NAME)).read_to_end(&mut start)?;
    let Some((header, rest)) = start.split_first_chunk() else { return Ok(None) };
    let named = Member::of_header(header).ok().and_then(|_| name(rest.to_vec()).ok());
    Ok(named.map(|name| Path::new("/").join(name)))
}

/// The number of bytes that fill up `length` to a multiple of four, where the next part of a member begins.
#[must_use]
pub fn padding(length: u64) -> u64 {
    length.wrapping_neg() % 4
}

fn numbers(digits: &[u8]) -> Result<[u32; 13]> {
    let mut fields = [0; 13];
    for (field, digits) in fields.iter_mut().zip(digits.chunks(8)) {
        *field = number(digits)?;
    }
    Ok(fields)
}

fn number(digits: &[u8]) -> Result<u32> {
    // `from_str_radix` alone accepts a sign.
    let text = std::str::from_utf8(digits).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_hexdigit()));
    match text.map(|text| u32::from_str_radix(text, 16)) {
        Some(Ok(number)) => Ok(number),
        _ => bail!("\"{}\" in the header is no hexadecimal number", digits.escape_ascii()),
    }
}

fn without_root(path: &Path) -> PathBuf {
    path.components().filter(|part| matches!(part, std::path::Component::Normal(_))).collect()
}

fn lossy<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&path.to_string_lossy())
}

/// Serializes a path, with other bytes than UTF-8 replaced.
///
/// # Errors
///
/// Those of the serializer.
#[expect(clippy::ref_option, reason = "serde gives the field as it is")]
pub(crate) fn lossy_or_none<S: Serializer>(path: &Option<PathBuf>, serializer: S) -> Result<S::Ok, S::Error> {
    path.as_ref().map(|path| path.to_string_lossy()).serialize(serializer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(numbers: [u32; 13]) -> [u8; HEADER] {
        let digits: Vec<_> = numbers.iter().map(|number| format!("{number:08x}")).collect();
        format!("070701{}", digits.concat()).into_bytes().try_into().unwrap()
    }

    #[test]
    fn headers() {
        let (member, name) = Member::of_header(&header([7, 0o100_644, 1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 0])).unwrap();
        assert_eq!((member.user, member.group, member.links, member.time, member.bytes), (1, 2, 3, 4, 5));
        assert_eq!((member.inode, member.device, name), ((7, 8, 9), (10, 11), 12));
        assert_eq!(member.kind, MemberKind::File);
    }

    #[test]
    fn bytes_that_are_no_header() {
        let good = header([1, 0o120_777, 0, 0, 1, 0, 4096, 0, 0, 0, 0, 4096, 0]);
        Member::of_header(&good).unwrap();
        let with = |place: usize, bytes: &[u8]| {
            let mut bad = good;
            bad[place..place + bytes.len()].copy_from_slice(bytes);
            Member::of_header(&bad).unwrap_err().to_string()
        };
        for (place, bytes, expected) in [
            (0, &b"070707"[..], "expected a cpio header, found \"070707\""),
            (6, b"+0000001", "\"+0000001\" in the header is no"),
            (6, b"0x000001", "no hexadecimal number"),
            (6, b"\xff0000001", "\"\\xff0000001\""),
            (94, b"00001001", "the name has 4097 bytes"),
            (94, b"00000000", "the name has 0 bytes"),
            (54, b"00001001", "the target of a symbolic link has 4097 bytes"),
        ] {
            let error = with(place, bytes);
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn names_end_at_the_first_nul() {
        assert_eq!(name(b"a/b\0c\0".to_vec()).unwrap(), Path::new("a/b"));
        for bad in [&b"ab"[..], b"\0", b""] {
            assert!(name(bad.to_vec()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn modes_as_ls_shows_them() {
        for (mode, letters) in [
            (0o100_644, "-rw-r--r--"),
            (0o040_755, "drwxr-xr-x"),
            (0o041_777, "drwxrwxrwt"),
            (0o120_777, "lrwxrwxrwx"),
            (0o020_600, "crw-------"),
            (0o104_755, "-rwsr-xr-x"),
            (0o102_644, "-rw-r-Sr--"),
            (0, "?---------"),
        ] {
            let (member, _) = Member::of_header(&header([1, mode, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 0])).unwrap();
            assert_eq!(member.mode_letters(), letters, "{mode:o}");
        }
    }

    #[test]
    fn paths_of_members() {
        let (mut member, _) = Member::of_header(&header([1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 0])).unwrap();
        for (in_archive, asked, same) in
            [("a/b", "/a/b", true), ("./a/b", "a/b", true), ("/a", "./a", true), ("a", "a/b", false), (".", "/", true)]
        {
            member.path = in_archive.into();
            assert_eq!(member.is_at(Path::new(asked)), same, "{in_archive} {asked}");
        }
    }
}
