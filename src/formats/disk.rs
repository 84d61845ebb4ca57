//! What is on a block device, by its superblock: of libblkid the little that a root on a disk takes.

/// A file system that was recognized.
#[derive(Debug, PartialEq, Eq)]
pub struct Superblock {
    /// The name of its driver.
    pub kind: &'static str,
    /// Its UUID as people write it, in small letters.
    pub uuid: String,
    /// Its label; may be empty.
    pub label: String,
}

/// Where a file system has what, bytes from the start of the device.
struct Format {
    kind: &'static str,
    magic: (usize, &'static [u8]),
    uuid: usize,
    /// Place and greatest length.
    label: (usize, usize),
}

/// The usual roots (`fs/ext4/ext4.h`, `fs/xfs/libxfs/xfs_format.h`, `include/uapi/linux/btrfs_tree.h`). ext2 and ext3 look the same as
/// ext4, whose driver mounts them, too.
const FORMATS: [Format; 3] = [
    Format { kind: "ext4", magic: (0x438, b"\x53\xef"), uuid: 0x468, label: (0x478, 16) },
    Format { kind: "xfs", magic: (0, b"XFSB"), uuid: 0x20, label: (0x6c, 12) },
    Format { kind: "btrfs", magic: (0x1_0040, b"_BHRfS_M"), uuid: 0x1_0020, label: (0x1_012b, 256) },
];

/// How much of the start of a device it takes to recognize each of them.
pub const LENGTH: u64 = 0x1_012b + 256;

/// Recognizes a file system by the first [`LENGTH`] bytes of its device.
#[must_use]
pub fn recognize(start: &[u8]) -> Option<Superblock> {
    let part = |place: usize, length: usize| start.get(place..)?.get(..length);
    FORMATS.iter().find_map(|format| {
        let (place, magic) = format.magic;
        if part(place, magic.len())? != magic {
            return None;
        }
        let label = part(format.label.0, format.label.1)?.split(|byte| *byte == 0).next()?;
        Some(Superblock {
            kind: format.kind,
            uuid: uuid(part(format.uuid, 16)?.try_into().ok()?),
            label: String::from_utf8_lossy(label).into_owned(),
        })
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
        for format in &FORMATS {
            let mut start = vec![0; usize::try_from(LENGTH).unwrap()];
            let mut put = |place: usize, bytes: &[u8]| start[place..place + bytes.len()].copy_from_slice(bytes);
            put(format.magic.0, format.magic.1);
            put(format.uuid, &(0xf0..=0xff).collect::<Vec<_>>());
            put(format.label.0, &[b'x'; 256][..format.label.1]);
            let expected = Superblock {
                kind: format.kind,
                uuid: "f0f1f2f3-f4f5-f6f7-f8f9-fafbfcfdfeff".into(),
                label: "x".repeat(format.label.1),
            };
            assert_eq!(recognize(&start), Some(expected));
            start[format.magic.0] ^= 1;
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
        let expected = Superblock { kind: "ext4", uuid: uuid.into(), label: "state".into() };
        assert_eq!(recognize(&std::fs::read(file.path()).unwrap()), Some(expected));
    }
}
