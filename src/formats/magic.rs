//! The one table of magic numbers: which bytes, at which offset, tell the kind of a file or of a block device (`man 5 magic`).
//!
//! Stage 1 uses it for store images and for disks, the builder and `firn inspect` for everything that they read.

use std::fmt;

/// As many bytes of the start of a file as [`recognize`] needs to see a store image.
pub const LENGTH: u64 = 2048;

/// The start of each header in a cpio archive of the kinds that are text. `newc` has two more digits.
pub const CPIO: &[u8; 4] = b"0707";

/// The start of a header in a "newc" archive.
pub const NEWC: &[u8; 6] = b"070701";

/// The same, with a checksum of the contents in the header.
pub const NEWC_WITH_CHECKSUM: &[u8; 6] = b"070702";

/// The start of a "legacy" frame of lz4 (`lz4 -l`).
pub const LZ4: [u8; 4] = [0x02, 0x21, 0x4c, 0x18];

/// The kind of a file or of the contents of a block device. [`Display`](fmt::Display) gives the end of a sentence that begins
/// with "it is".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of the formats")]
pub enum FileKind {
    Squashfs,
    Erofs,
    /// Or ext2 or ext3, whose magic number is the same.
    Ext4,
    Xfs,
    Btrfs,
    /// A kernel for x86 (bzImage).
    Kernel,
    /// A program for UEFI, or for DOS.
    EfiProgram,
    /// A program for Linux.
    Elf,
    Cpio,
    Gzip,
    Bzip2,
    Lzma,
    Xz,
    Lzo,
    Lz4,
    Zstd,
}

use FileKind::{
    Btrfs, Bzip2, Cpio, EfiProgram, Elf, Erofs, Ext4, Gzip, Kernel, Lz4, Lzma, Lzo, Squashfs, Xfs, Xz, Zstd,
};

/// The kind, the offset in bytes and the bytes there. The first that fits counts: a kernel for x86 is a program for UEFI, too.
/// Sources: `include/uapi/linux/magic.h`, `lib/decompress.c` and Documentation/arch/x86/boot.rst of Linux 6.12.
const MAGIC_NUMBERS: [(FileKind, usize, &[u8]); 17] = [
    (Squashfs, 0, b"hsqs"),
    (Erofs, 0x400, b"\xe2\xe1\xf5\xe0"),
    (Ext4, 0x438, b"\x53\xef"),
    (Xfs, 0, b"XFSB"),
    (Btrfs, 0x1_0040, b"_BHRfS_M"),
    (Kernel, 0x202, b"HdrS"),
    (EfiProgram, 0, b"MZ"),
    (Elf, 0, b"\x7fELF"),
    (Cpio, 0, CPIO),
    (Gzip, 0, b"\x1f\x8b"),
    (Gzip, 0, b"\x1f\x9e"), // gzip 0.5
    (Bzip2, 0, b"BZh"),
    (Lzma, 0, b"\x5d\0\0"),
    (Xz, 0, b"\xfd7zXZ\0"),
    (Lzo, 0, b"\x89LZO"),
    (Lz4, 0, &LZ4),
    (Zstd, 0, b"\x28\xb5\x2f\xfd"),
];

/// The kind of a file that begins with these bytes, [`LENGTH`] of them or all that it has.
#[must_use]
pub fn recognize(start: &[u8]) -> Option<FileKind> {
    MAGIC_NUMBERS.iter().find(|number| fits(number, start)).map(|(kind, ..)| *kind)
}

fn fits((_, offset, bytes): &(FileKind, usize, &[u8]), start: &[u8]) -> bool {
    start.get(*offset..).is_some_and(|rest| rest.starts_with(bytes))
}

impl FileKind {
    /// Whether a file that begins with these bytes has a magic number of this kind, whatever others it has.
    #[must_use]
    pub fn is_kind_of(self, start: &[u8]) -> bool {
        MAGIC_NUMBERS.iter().any(|number| number.0 == self && fits(number, start))
    }

    /// The name of the kernel's driver, if this is a file system that store images have.
    #[must_use]
    pub fn store_image(self) -> Option<&'static str> {
        match self {
            Squashfs => Some("squashfs"),
            Erofs => Some("erofs"),
            _ => None,
        }
    }
}

impl fmt::Display for FileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Squashfs => "a squashfs",
            Erofs => "an erofs",
            Ext4 => "an ext2, ext3 or ext4 file system",
            Xfs => "an xfs file system",
            Btrfs => "a btrfs file system",
            Kernel => "a Linux kernel",
            EfiProgram => "an EFI program",
            Elf => "a program",
            Cpio => "a cpio archive",
            Gzip => "compressed (gzip)",
            Bzip2 => "compressed (bzip2)",
            Lzma => "compressed (lzma)",
            Xz => "compressed (xz)",
            Lzo => "compressed (lzo)",
            Lz4 => "compressed (lz4)",
            Zstd => "compressed (zstd)",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_files() {
        let at = |offset: usize, bytes: &[u8]| [&vec![0; offset], bytes].concat();
        let erofs = at(0x400, &0xe0f5_e1e2_u32.to_le_bytes());
        let kernel = [b"MZ", &at(0x200, b"HdrS")[..]].concat();
        for (start, expected) in [
            (&erofs[..], Some(Erofs)),
            (b"hsqs and so on", Some(Squashfs)),
            (&kernel, Some(Kernel)),
            (b"MZ\x90", Some(EfiProgram)),
            (b"\x28\xb5\x2f\xfd", Some(Zstd)),
            (b"070701", Some(Cpio)),
            (b"\xfd7zX", None),
            (b"", None),
        ] {
            assert_eq!(recognize(start), expected, "{}", start.escape_ascii());
        }
        assert!(EfiProgram.is_kind_of(&kernel) && Kernel.is_kind_of(&kernel) && !Elf.is_kind_of(&kernel));
    }

    #[test]
    fn store_images_are_within_the_length() {
        for (kind, offset, bytes) in MAGIC_NUMBERS {
            assert!(kind.store_image().is_none() || (offset + bytes.len()) as u64 <= LENGTH, "{kind}");
        }
    }
}
