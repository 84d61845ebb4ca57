//! The file system on a block device, by its superblock: the small part of libblkid that a root on a disk needs.

use crate::formats::magic::FileKind;

/// A file system that was recognized.
#[derive(Debug, PartialEq, Eq)]
pub struct DiskFileSystem {
    /// The name of its driver.
    pub kind: &'static str,
    /// Its UUID as people write it, in small letters.
    pub uuid: String,
    /// Its label; may be empty.
    pub label: String,
}

/// The places of the fields in a superblock, bytes from the start of the device.
struct Layout {
    driver: &'static str,
    kind: FileKind,
    uuid: usize,
    /// Place and greatest length.
    label: (usize, usize),
}

/// The usual roots (`fs/ext4/ext4.h`, `fs/xfs/libxfs/xfs_format.h`, `include/uapi/linux/btrfs_tree.h` of Linux 6.12). ext2 and ext3
/// look the same as ext4, whose driver mounts them, too.
const LAYOUTS: [Layout; 3] = [
    Layout { driver: "ext4", kind: FileKind::Ext4, uuid: 0x468, label: (0x478, 16) },
    Layout { driver: "xfs", kind: FileKind::Xfs, uuid: 0x20, label: (0x6c, 12) },
    Layout { driver: "btrfs", kind: FileKind::Btrfs, uuid: 0x1_0020, label: (0x1_012b, 256) },
];

/// As many bytes of the start of a device as [`recognize`] needs.
pub const LENGTH: u64 = 0x1_012b + 256;

/// Recognizes a file system by the first [`LENGTH`] bytes of its device.
#[must_use]
pub fn recognize(start: &[u8]) -> Option<DiskFileSystem> {
    let part = |place: usize, length: usize| start.get(place..)?.get(..length);
    let layout = LAYOUTS.iter().find(|layout| layout.kind.is_kind_of(start))?;
    let label = part(layout.label.0, layout.label.1)?.split(|byte| *byte == 0).next()?;
    Some(DiskFileSystem {
        kind: layout.driver,
        uuid: uuid(part(layout.uuid, 16)?.try_into().ok()?),
        label: String::from_utf8_lossy(label).into_owned(),
    })
}

/// Five groups of hexadecimal digits.
fn uuid(bytes: [u8; 16]) -> String {
    let number = u128::from_be_bytes(bytes);
    let group = |shift: u32| (number >> shift) & 0xffff;
    let (first, last) = (number >> 96, number & 0xffff_ffff_ffff);
    format!("{first:08x}-{:04x}-{:04x}-{:04x}-{last:012x}", group(80), group(64), group(48))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn file_systems_are_recognized() {
        let magic: [(usize, &[u8]); 3] = [(0x438, b"\x53\xef"), (0, b"XFSB"), (0x1_0040, b"_BHRfS_M")];
        for (layout, (place, magic)) in LAYOUTS.iter().zip(magic) {
            let mut start = vec![0; usize::try_from(LENGTH).unwrap()];
            let mut put = |place: usize, bytes: &[u8]| start[place..place + bytes.len()].copy_from_slice(bytes);
            put(place, magic);
            put(layout.uuid, &(0xf0..=0xff).collect::<Vec<_>>());
            put(layout.label.0, &[b'x'; 256][..layout.label.1]);
            let expected = DiskFileSystem {
                kind: layout.driver,
                uuid: "f0f1f2f3-f4f5-f6f7-f8f9-fafbfcfdfeff".into(),
                label: "x".repeat(layout.label.1),
            };
            assert_eq!(recognize(&start), Some(expected));
            start[place] ^= 1;
            assert_eq!(recognize(&start), None);
        }
        assert_eq!(recognize(&[]), None);
        assert_eq!(recognize(b"XFSB"), None);
    }

    #[test]
    fn an_ext4_as_others_make_it() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(4 << 20).unwrap();
        let uuid = "01234567-89ab-cdef-0123-456789abcdef";
        let mut mkfs = Command::new("/sbin/mkfs.ext4");
        mkfs.args(["-q", "-F", "-L", "state", "-U", uuid]).arg(file.path());
        assert!(mkfs.status().unwrap().success());
        let expected = DiskFileSystem { kind: "ext4", uuid: uuid.into(), label: "state".into() };
        assert_eq!(recognize(&std::fs::read(file.path()).unwrap()), Some(expected));
    }
}
