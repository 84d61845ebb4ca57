//! What a file is that is said to be a store image, by its first bytes (`man 5 magic`).

/// How much of its start it takes to tell, bytes.
pub const LENGTH: u64 = 2048;

/// What was recognized.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum File {
    /// A store image, by the name of its file system.
    Image(&'static str),
    /// Something else, as one says in a sentence: it is …
    Other(&'static str),
}

use File::{Image, Other};

/// Magic numbers at their offsets.
const FILES: [(usize, &[u8], File); 9] = [
    (0, b"hsqs", Image("squashfs")),
    (0x400, b"\xe2\xe1\xf5\xe0", Image("erofs")),
    (0x438, b"\x53\xef", Other("an ext2, ext3 or ext4")),
    (0, b"XFSB", Other("an xfs")),
    (0, b"070701", Other("a cpio archive")),
    (0, b"\x28\xb5\x2f\xfd", Other("compressed (zstd)")),
    (0, b"\xfd7zXZ\0", Other("compressed (xz)")),
    (0, b"\x1f\x8b", Other("compressed (gzip)")),
    (0, b"\x7fELF", Other("a program")),
];

/// Recognizes a file by its first [`LENGTH`] bytes.
#[must_use]
pub fn recognize(start: &[u8]) -> Option<File> {
    let begins = |offset: usize, magic: &[u8]| start.get(offset..).is_some_and(|rest| rest.starts_with(magic));
    FILES.iter().find(|(offset, magic, _)| begins(*offset, magic)).map(|(_, _, file)| *file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files() {
        let mut erofs = vec![0; 2048];
        erofs[0x400..0x404].copy_from_slice(&0xe0f5_e1e2_u32.to_le_bytes());
        for (start, expected) in [
            (&erofs[..], Some(Image("erofs"))),
            (b"hsqs and so on", Some(Image("squashfs"))),
            (b"", None),
            (b"\x28\xb5\x2f\xfd", Some(Other("compressed (zstd)"))),
        ] {
            assert_eq!(recognize(start), expected);
        }
    }
}
