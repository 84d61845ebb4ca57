//! Checks of signatures whose magic number alone says too little: leftovers, and numbers that other contents have by chance.

use super::Source;
use std::io;

/// Whether the signature of this name, whose magic number is at `place`, is a real one.
///
/// # Errors
///
/// An error of reading.
pub(super) fn holds(name: &str, source: &Source<'_>, place: u64) -> io::Result<bool> {
    let number = |place, length| source.number(place, length);
    Ok(match name {
        // The superblock at the end of a disk belongs to the last partition, if the partition reaches so far.
        "linux_raid_member" | "zfs_member" => !is_in_partition(source, place / 512)?,
        // A later file system overwrites the header, and leaves the magic number at the end of a large page. "SWAP-SPACE" has no header
        // (`union swap_header`, include/linux/swap.h).
        "swap" => {
            number(place + 4, 1)? == u64::from(b'-')
                || number(0x404, 4)? > 0 && matches!(number(0x400, 4)?, 1 | 0x0100_0000)
        }
        // The number of tables, and the kind of the medium.
        "vfat" => number(0x10, 1)? > 0 && number(0x15, 1)? >= 0xf0,
        // s_log_block_size, and EXT4_FEATURE_INCOMPAT_JOURNAL_DEV of s_feature_incompat (fs/ext4/ext4.h).
        "ext4" | "jbd" => number(0x418, 4)? < 256 && (number(0x460, 1)? & 8 != 0) == (name == "jbd"),
        _ => true,
    })
}

/// Whether a sector of a disk is in a partition, by the table in its first sector. There, a GPT disk is one partition.
fn is_in_partition(source: &Source<'_>, sector: u64) -> io::Result<bool> {
    let number = |place, length| source.number(place, length);
    let mut is_inside = false;
    for entry in [0x1be, 0x1ce, 0x1de, 0x1ee] {
        // The boot sector of a file system ends with the same two bytes, and has a program in this place.
        if !source.is_disk || number(510, 2)? != 0xaa55 || number(entry, 1)? & 0x7f != 0 {
            return Ok(false);
        }
        let (start, length) = (number(entry + 8, 4)?, number(entry + 12, 4)?);
        is_inside |= number(entry + 4, 1)? != 0 && (start..start + length).contains(&sector);
    }
    Ok(is_inside)
}
