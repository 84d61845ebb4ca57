//! The one table of signatures on block devices, with the names of libblkid (`libblkid/src/superblocks/` of util-linux 2.42).
//!
//! Signatures with a magic number of two bytes are left out (minix, the older HFS, FAT without its name, the arrays of VIA
//! and some others): the usual roots may have these two bytes by chance.

use super::{Source, checks};
use std::io;

/// A line for each signature, in libblkid's order: class ([`Class::of`]), name, magic number and places. Packed into one text, since a
/// table of slices is twice as large.
///
/// A place is hexadecimal: bytes from the start of the device. `c-400` is a place before the end: the size rounded down to a multiple
/// of 2 to the power of 0xc, minus 0x400. Of long magic numbers the first [`LONGEST`] bytes are here.
const TABLE: &[u8] = b"\
    r\tlinux_raid_member\t\xfc\x4e\x2b\xa9\0\0\0\0\t10-10000\n\
    r\tlinux_raid_member\t\xa9\x2b\x4e\xfc\0\0\0\0\t10-10000\n\
    r\tlinux_raid_member\t\xfc\x4e\x2b\xa9\x01\0\0\0\tc-2000 0 1000\n\
    r\tddf_raid_member\t\xde\x11\xde\x11\t9-200 9-20200\n\
    b\tisw_raid_member\tIntel Raid I\t9-400\n\
    b\tlsi_mega_raid_member\t$XIDE$\t9-200\n\
    b\tnvidia_raid_member\tNVIDIA  \t9-400\n\
    b\tpromise_fasttrack_raid_member\tPromise Tech\t9-7e00 9-1fe00 9-20000 9-2000 9-31e00 9-49e00 9-54600 9-5be00 9-71e00 9-79c00 9-7be00 9-76e00 9-181e00\n\
    b\thpt45x_raid_member\t\xf3\x16\x78\x5a\t9-1600\n\
    b\thpt45x_raid_member\t\xfd\x16\x78\x5a\t9-1600\n\
    b\thpt37x_raid_member\t\xf0\x16\x78\x5a\t1220\n\
    b\thpt37x_raid_member\t\xfd\x16\x78\x5a\t1220\n\
    b\tadaptec_raid_member\t\x37\xfc\x4d\x1e\t9-200\n\
    o\tbcache\t\xc6\x85\x73\xf6\x4e\x1a\x45\xca\t1018\n\
    f\tbcachefs\t\xc6\x85\x73\xf6\x66\xce\x90\xa9\t1018 200018 9-fffe8\n\
    o\tceph_bluestore\tbluestore bl\t0\n\
    r\tdrbd\t\x83\x74\x02\x6b\tc-fc4\n\
    r\tdrbd\t\x83\x74\x02\x6c\tc-fc4\n\
    r\tdrbd\t\x83\x74\x02\x6d\tc-fc4\n\
    o\tdrbdmanage_control_volume\t$DRBDmgr=q\t0\n\
    f\tdrbdproxy_datalog\tDRBDdlh*\t0\n\
    r\tLVM2_member\tLVM2 001\t218 18 418 618\n\
    r\tLVM1_member\tHM\x01\0\t0\n\
    r\tLVM1_member\tHM\x02\0\t0\n\
    o\tDM_snapshot_cow\tSnAp\t0\n\
    c\tDM_verity_hash\tverity\0\0\t0\n\
    c\tDM_integrity\tintegrt\0\t0\n\
    c\tcrypto_LUKS\tLUKS\xba\xbe\t0\n\
    c\tcrypto_LUKS\tSKUL\xba\xbe\t4000 8000 10000 20000 40000 80000 100000 200000 400000\n\
    r\tVMFS_volume_member\t\x0d\xd0\x01\xc0\t100000\n\
    r\tubi\tUBI#\t0\n\
    o\tvdo\tdmvdo001\t0\n\
    r\tstratis\t!Stra0tis\x86\xff\x02\t204 1204\n\
    c\tBitLocker\t-FVE-FS-\t3\n\
    c\tcs_fvault2\tCS\x01\0\0\0\t58\n\
    f\tvfat\tFAT32   \t52\n\
    f\tvfat\tFAT16   \t36\n\
    f\tvfat\tFAT12   \t36\n\
    o\tswsuspend\t\xed\xc3\x02\xe9\x98\x56\xe5\x0c\t0\n\
    o\tswsuspend\tS1SUSPEND\tff6 1ff6 3ff6 7ff6 fff6\n\
    o\tswsuspend\tS2SUSPEND\tff6 1ff6 3ff6 7ff6 fff6\n\
    o\tswsuspend\tULSUSPEND\tff6 1ff6 3ff6 7ff6 fff6\n\
    o\tswsuspend\tLINHIB0001\tff6 1ff6 3ff6 7ff6 fff6\n\
    o\tswap\tSWAPSPACE2\tff6 1ff6 3ff6 7ff6 fff6\n\
    o\tswap\tSWAP-SPACE\tff6 1ff6 3ff6 7ff6 fff6\n\
    f\txfs\tXFSB\t0\n\
    f\texfs\tEXFS\t0\n\
    f\text4\t\x53\xef\t438\n\
    o\tjbd\t\x53\xef\t438\n\
    f\treiserfs\tReIsErFs\t2034 10034 2014\n\
    f\treiserfs\tReIsEr2Fs\t10034\n\
    f\treiserfs\tReIsEr3Fs\t10034\n\
    f\treiser4\tReIsEr4\t10000\n\
    f\tjfs\tJFS1\t8000\n\
    t\tudf\tBEA01\t8001\n\
    t\tiso9660\tCD001\t8001\n\
    f\tzfs_member\t\0\0\0\x07version\t4014 44014 12-7bfec 12-3bfec\n\
    f\thfsplus\tH+\0\x04\t400\n\
    f\thfsplus\tHX\0\x05\t400\n\
    f\tufs\t\x19\x01\x54\x19\t55c 255c 1055c 4055c\n\
    f\tufs\t\x54\x19\x01\0\t55c 255c 1055c 4055c\n\
    f\thpfs\t\x49\xe8\x95\xf9\t2000\n\
    f\tntfs\tNTFS    \t3\n\
    f\tReFS\t\0\0\0ReFS\0\t0\n\
    f\tcramfs\t\x45\x3d\xcd\x28\t0\n\
    f\tromfs\t-rom1fs-\t0\n\
    f\tgfs2\t\x01\x16\x19\x70\0\0\0\x01\t10000\n\
    f\tocfs2\tOCFSV2\t400 800 1000 2000\n\
    f\toracleasm\tORCLDISK\t20\n\
    f\tsquashfs\thsqs\t0\n\
    f\tnss\tSPB5\t1000\n\
    f\tbtrfs\t_BHRfS_M\t10040\n\
    f\tubifs\t\x31\x18\x10\x06\t0\n\
    f\tVMFS\t\x5e\xf1\xab\x2f\t200000\n\
    f\tnilfs2\t\x02\0\0\0\0\0\x34\x34\x18\x01\t400 9-1000\n\
    f\texfat\tEXFAT   \t3\n\
    f\tf2fs\t\x10\x20\xf5\xf2\t400\n\
    f\tmpool\tmpoolDev\t0\n\
    f\tapfs\tNXSB\t20\n\
    f\tzonefs\tSFOZ\t0\n\
    f\terofs\t\xe2\xe1\xf5\xe0\t400";

/// The length of the longest magic number, bytes.
const LONGEST: usize = 12;

/// The effect of a signature on the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// A member of an array or of a volume group.
    Raid,
    /// A member of an array of the firmware.
    BiosRaid,
    /// An encrypted volume, or a part of a verified one.
    Crypto,
    /// Other contents that are no file system.
    Other,
    /// A file system.
    FileSystem,
    /// A file system of a kind that two of may be on one device: hybrid images of CDs.
    Tolerant,
}

/// A signature.
#[derive(Debug)]
pub(super) struct Signature {
    pub(super) class: Class,
    /// libblkid's name.
    pub(super) name: &'static str,
    magic: &'static [u8],
    /// In the form of [`TABLE`].
    places: &'static str,
}

/// All signatures.
pub(super) fn all() -> impl Iterator<Item = Signature> {
    TABLE.split(|byte| *byte == b'\n').filter_map(Signature::parse)
}

impl Class {
    fn of(letter: &[u8]) -> Option<Self> {
        Some(match letter {
            b"r" => Self::Raid,
            b"b" => Self::BiosRaid,
            b"c" => Self::Crypto,
            b"o" => Self::Other,
            b"f" => Self::FileSystem,
            b"t" => Self::Tolerant,
            _ => return None,
        })
    }

    /// Whether signatures after this one do not count.
    pub(super) fn decides(self) -> bool {
        matches!(self, Self::Raid | Self::BiosRaid | Self::Crypto)
    }
}

impl Signature {
    fn parse(line: &'static [u8]) -> Option<Self> {
        let mut fields = line.split(|byte| *byte == b'\t');
        let class = Class::of(fields.next()?)?;
        let name = str::from_utf8(fields.next()?).ok()?;
        let magic = fields.next()?;
        Some(Self { class, name, magic, places: str::from_utf8(fields.next()?).ok()? })
    }

    /// Whether a device has this signature.
    ///
    /// # Errors
    ///
    /// An error of reading.
    pub(super) fn is_on(&self, source: &Source<'_>) -> io::Result<bool> {
        for place in self.places.split(' ').filter_map(|text| place(text, source.size)) {
            let mut bytes = [0; LONGEST];
            let bytes = bytes.get_mut(..self.magic.len()).unwrap_or_default();
            if source.fill(bytes, place)? && bytes == self.magic && checks::holds(self.name, source, place)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The reason against mounting a device that has only this signature, as the end of a sentence that begins with "it is".
    pub(super) fn refusal(&self) -> Option<String> {
        let people_say = match self.name {
            "linux_raid_member" => "a member of a Linux RAID",
            "drbd" => "the disk of a DRBD device",
            "LVM2_member" | "LVM1_member" => "a physical volume of LVM",
            "crypto_LUKS" => "encrypted with LUKS",
            "bcache" => "a part of a bcache device",
            "zfs_member" => "a member of a ZFS pool",
            "swap" | "swsuspend" => "swap space",
            "jbd" => "the journal of another file system",
            _ if matches!(self.class, Class::FileSystem | Class::Tolerant) => return None,
            _ => "a part of another device",
        };
        Some(format!("{people_say}, {}", self.name))
    }
}

/// The place, bytes from the start of a device of this size.
fn place(text: &str, size: u64) -> Option<u64> {
    let number =
        |text: &str| text.chars().fold(0, |number, digit| number << 4 | u64::from(digit.to_digit(16).unwrap_or(0)));
    let Some((power, before_end)) = text.split_once('-') else { return Some(number(text)) };
    let power = number(power);
    (size >> power << power).checked_sub(number(before_end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_read_to_its_last_line() {
        let lines = TABLE.split(|byte| *byte == b'\n').count();
        assert_eq!(all().count(), lines);
        for signature in all() {
            let places: Vec<_> = signature.places.split(' ').map(|text| place(text, 1 << 30)).collect();
            assert!(!places.is_empty() && places.iter().all(Option::is_some), "{signature:?}");
            assert!((2..=LONGEST).contains(&signature.magic.len()), "{signature:?}");
        }
    }

    #[test]
    fn places() {
        for (text, size, expected) in [
            ("1018", 0, Some(0x1018)),
            ("9-400", 0x1000, Some(0xc00)),
            ("9-400", 0x11ff, Some(0xc00)),
            ("10-10000", 0x2_ffff, Some(0x1_0000)),
            ("10-10000", 0xffff, None),
            ("9-400", 0, None),
        ] {
            assert_eq!(place(text, size), expected, "{text} {size:#x}");
        }
    }
}
