//! The contents of a block device, by its superblocks: the part of libblkid that a root on a disk needs.
//!
//! As in libblkid, the first signature of a RAID or of an encrypted volume decides, and two file systems at once are refused: a file
//! system inside of a member must not be mounted, since a write to one member alone damages the array.

mod checks;
mod signatures;

use signatures::{Class, Signature};
use std::io;

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

/// The contents of a device.
#[derive(Debug, PartialEq, Eq)]
pub struct Contents {
    /// The reason against mounting the device, as the end of a sentence that begins with "it is".
    pub refusal: Option<String>,
    /// The file system, or the one inside of a member.
    pub file_system: Option<DiskFileSystem>,
}

/// A device to read.
pub struct Source<'a> {
    /// Its size, bytes.
    pub size: u64,
    /// Whether it is a disk and no partition. Members of a BIOS RAID are disks.
    pub is_disk: bool,
    /// Fills a buffer from a place, bytes from the start. It is never called for a place beyond [`Source::size`].
    pub read: &'a dyn Fn(&mut [u8], u64) -> io::Result<()>,
}

/// The places of the fields in a superblock, bytes from the start of the device.
struct Layout {
    driver: &'static str,
    uuid: u64,
    /// Place and greatest length.
    label: (u64, usize),
}

/// The usual roots (`fs/ext4/ext4.h`, `fs/xfs/libxfs/xfs_format.h`, `include/uapi/linux/btrfs_tree.h` of Linux 6.12). ext2 and ext3
/// look the same as ext4, whose driver mounts them, too.
const LAYOUTS: [Layout; 3] = [
    Layout { driver: "ext4", uuid: 0x468, label: (0x478, 16) },
    Layout { driver: "xfs", uuid: 0x20, label: (0x6c, 12) },
    Layout { driver: "btrfs", uuid: 0x1_0020, label: (0x1_012b, 256) },
];

/// libblkid looks for no RAID and for only one file system on a device of this size or less, bytes: a floppy disk
/// (`BLKID_FL_TINY_DEV`).
const FLOPPY: u64 = 1440 << 10;

/// Recognizes the contents of a device.
///
/// # Errors
///
/// An error of reading: without one of the places nothing certain can be said.
pub fn recognize(source: &Source<'_>) -> io::Result<Contents> {
    let is_floppy = source.size <= FLOPPY;
    let mut found: Vec<Signature> = Vec::new();
    for signature in signatures::all() {
        let is_left_out = match signature.class {
            Class::Raid => is_floppy,
            Class::BiosRaid => is_floppy || !source.is_disk,
            _ => false,
        };
        let is_known = found.iter().any(|other| other.name == signature.name);
        if !is_left_out && !is_known && signature.is_on(source)? {
            found.push(signature);
        }
    }
    let mut layouts = found.iter().filter_map(|one| LAYOUTS.iter().find(|layout| layout.driver == one.name));
    let file_system = layouts.next().map(|layout| layout.read(source)).transpose()?;
    if is_floppy {
        found.truncate(1);
    }
    Ok(Contents { refusal: refusal(&found), file_system })
}

/// The reason against mounting a device with these signatures.
fn refusal(found: &[Signature]) -> Option<String> {
    let last = found.iter().position(|signature| signature.class.decides());
    match last.and_then(|last| found.get(..=last)).unwrap_or(found) {
        [one] => one.refusal(),
        several if several.iter().all(|signature| signature.class == Class::Tolerant) => None,
        several => {
            let names: Vec<_> = several.iter().map(|signature| signature.name).collect();
            Some(format!("of several kinds at once, {}", names.join(" and ")))
        }
    }
}

impl Source<'_> {
    /// A little-endian number of up to eight bytes; 0 where the device has no such place.
    fn number(&self, place: u64, length: usize) -> io::Result<u64> {
        let mut bytes = [0; 8];
        self.fill(bytes.get_mut(..length).unwrap_or_default(), place)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// Fills a buffer from a place. Returns whether the device has such a place.
    fn fill(&self, buffer: &mut [u8], place: u64) -> io::Result<bool> {
        let is_there = place.checked_add(buffer.len() as u64).is_some_and(|end| end <= self.size);
        if is_there {
            (self.read)(buffer, place)?;
        }
        Ok(is_there)
    }
}

impl Layout {
    fn read(&self, source: &Source<'_>) -> io::Result<DiskFileSystem> {
        let (mut label, mut bytes) = ([0; 256], [0; 16]);
        let label = label.get_mut(..self.label.1).unwrap_or_default();
        source.fill(label, self.label.0)?;
        source.fill(&mut bytes, self.uuid)?;
        let label = label.split(|byte| *byte == 0).next().unwrap_or_default();
        let label = String::from_utf8_lossy(label).into_owned();
        Ok(DiskFileSystem { kind: self.driver, uuid: uuid(bytes), label })
    }
}

/// Five groups of hexadecimal digits.
fn uuid(bytes: [u8; 16]) -> String {
    let number = u128::from_be_bytes(bytes);
    let group = |shift: u32| (number >> shift) & 0xffff;
    let (first, last) = (number >> 96, number & 0xffff_ffff_ffff);
    format!("{first:08x}-{:04x}-{:04x}-{:04x}-{last:012x}", group(80), group(64), group(48))
}

#[cfg(test)]
mod tests;
