//! The superblock of a store image: its file system, and how it was packed.

use crate::formats::magic::FileKind;
use serde::Serialize;

/// As many bytes of the start of an image as [`recognize`] needs.
pub const LENGTH: usize = EROFS + 128;

/// The offset of the superblock of erofs, bytes (`EROFS_SUPER_OFFSET`).
const EROFS: usize = 1024;

/// What the superblock of an image says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StoreSuperblock {
    /// The name of its driver: `squashfs` or `erofs`.
    pub format: &'static str,
    /// The compressor, by its name in mksquashfs or mkfs.erofs; several with `+` between.
    pub compressor: String,
    /// Size of its blocks, bytes.
    pub block_size: u64,
    /// The number of files, directories and so on.
    pub inodes: u64,
    /// The length of the file system, bytes; its file may be longer.
    pub used: u64,
}

/// Recognizes a store image by its first [`LENGTH`] bytes.
#[must_use]
pub fn recognize(start: &[u8]) -> Option<StoreSuperblock> {
    if FileKind::Squashfs.is_kind_of(start) {
        squashfs(start)
    } else if FileKind::Erofs.is_kind_of(start) {
        erofs(start.get(EROFS..)?)
    } else {
        None
    }
}

/// `struct squashfs_super_block`, `fs/squashfs/squashfs_fs.h` of Linux 6.12.
fn squashfs(start: &[u8]) -> Option<StoreSuperblock> {
    const NO_DATA_COMPRESSION: u64 = 1 << 1;
    let version = number(start, 28, 2)?;
    if version != 4 {
        return None;
    }
    let compressor = match number(start, 20, 2)? {
        _ if number(start, 24, 2)? & NO_DATA_COMPRESSION != 0 => "none",
        1 => "gzip",
        2 => "lzma",
        3 => "lzo",
        4 => "xz",
        5 => "lz4",
        6 => "zstd",
        _ => "unknown",
    };
    Some(StoreSuperblock {
        format: "squashfs",
        compressor: compressor.into(),
        block_size: number(start, 12, 4)?,
        inodes: number(start, 4, 4)?,
        used: number(start, 40, 8)?,
    })
}

/// `struct erofs_super_block`, `fs/erofs/erofs_fs.h` of Linux 6.12.
fn erofs(block: &[u8]) -> Option<StoreSuperblock> {
    const ALGORITHMS: [&str; 4] = ["lz4", "lzma", "deflate", "zstd"];
    const ZERO_PADDING: u64 = 1;
    const COMPRESSION_CONFIGURATIONS: u64 = 1 << 1;
    let (bits, features, algorithms) = (number(block, 12, 1)?, number(block, 80, 4)?, number(block, 84, 2)?);
    let block_size = 1_u64.checked_shl(u32::try_from(bits).ok()?)?;
    let names = (0..).zip(ALGORITHMS).filter(|(bit, _)| algorithms >> bit & 1 == 1).map(|(_, name)| name);
    let compressor = if features & COMPRESSION_CONFIGURATIONS != 0 {
        names.collect::<Vec<_>>().join("+")
    } else if features & ZERO_PADDING != 0 {
        "lz4".into()
    } else {
        "none".into()
    };
    Some(StoreSuperblock {
        format: "erofs",
        compressor,
        block_size,
        inodes: number(block, 16, 8)?,
        used: number(block, 36, 4)?.checked_mul(block_size)?,
    })
}

/// A number of `length` bytes, the lowest first.
fn number(bytes: &[u8], place: usize, length: usize) -> Option<u64> {
    let digits = bytes.get(place..)?.get(..length)?;
    Some(digits.iter().rev().fold(0, |number, digit| number << 8 | u64::from(*digit)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::process::Command;

    #[test]
    fn images_as_others_make_them() {
        let directory = tempfile::tempdir().unwrap();
        let (tree, image) = (directory.path().join("tree"), directory.path().join("image"));
        fs::create_dir(&tree).unwrap();
        fs::write(tree.join("file"), vec![7; 300_000]).unwrap();
        for (command, format, compressor, block_size) in [
            ("mksquashfs tree image -quiet -no-progress -b 256K -comp zstd", "squashfs", "zstd", 256 << 10),
            ("mksquashfs tree image -quiet -no-progress -comp gzip", "squashfs", "gzip", 128 << 10),
            ("mksquashfs tree image -quiet -no-progress -noI -noId -noD -noF -noX", "squashfs", "none", 128 << 10),
            ("mkfs.erofs image tree >&2", "erofs", "none", 4096),
            ("mkfs.erofs -zlz4hc image tree >&2", "erofs", "lz4", 4096),
        ] {
            let output = Command::new("sh").args(["-euc", command]).current_dir(&directory).output().unwrap();
            assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
            let bytes = fs::read(&image).unwrap();
            let found = recognize(&bytes[..LENGTH]).expect(command);
            assert_eq!(
                (found.format, &*found.compressor, found.block_size),
                (format, compressor, block_size),
                "{command}"
            );
            assert_eq!(found.inodes, 2, "{command}");
            assert!(found.used <= bytes.len() as u64 && found.used + 4096 > bytes.len() as u64, "{command}: {found:?}");
            fs::remove_file(&image).unwrap();
        }
    }

    #[test]
    fn bytes_that_are_no_image() {
        let mut other_version = b"hsqs".to_vec();
        other_version.resize(LENGTH, 0);
        for bytes in [&b""[..], b"hsqs", &[0; LENGTH], &other_version] {
            assert_eq!(recognize(bytes), None);
        }
    }
}
