use super::*;
use std::path::Path;
use std::process::Command;
use tempfile::NamedTempFile;

/// The contents of a disk with these bytes.
fn of(bytes: &[u8]) -> Contents {
    let read = |buffer: &mut [u8], place: u64| {
        let place = usize::try_from(place).unwrap();
        buffer.copy_from_slice(&bytes[place..place + buffer.len()]);
        Ok(())
    };
    recognize(&Source { size: bytes.len() as u64, is_disk: true, read: &read }).unwrap()
}

fn put(disk: &mut [u8], place: usize, bytes: &[u8]) {
    disk[place..place + bytes.len()].copy_from_slice(bytes);
}

const NOTHING: Contents = Contents { refusal: None, file_system: None };

/// The reason against mounting a disk with these bytes; may be empty.
fn reason(bytes: &[u8]) -> String {
    of(bytes).refusal.unwrap_or_default()
}

#[test]
fn file_systems_are_recognized() {
    let magic: [(usize, &[u8]); 3] = [(0x438, b"\x53\xef"), (0, b"XFSB"), (0x1_0040, b"_BHRfS_M")];
    for (layout, (place, magic)) in LAYOUTS.iter().zip(magic) {
        let mut disk = vec![0; 2 << 20];
        let (uuid, label) = (usize::try_from(layout.uuid).unwrap(), usize::try_from(layout.label.0).unwrap());
        put(&mut disk, place, magic);
        put(&mut disk, uuid, &(0xf0..=0xff).collect::<Vec<_>>());
        put(&mut disk, label, &[b'x'; 256][..layout.label.1]);
        let expected = DiskFileSystem {
            kind: layout.driver,
            uuid: "f0f1f2f3-f4f5-f6f7-f8f9-fafbfcfdfeff".into(),
            label: "x".repeat(layout.label.1),
        };
        assert_eq!(of(&disk), Contents { refusal: None, file_system: Some(expected) });
        disk[place] ^= 1;
        assert_eq!(of(&disk), NOTHING);
    }
}

#[test]
fn small_devices() {
    for size in [0, 1, 511, 512, 1024, 4096, 64 << 10, (64 << 10) + 1, 128 << 10] {
        assert_eq!(of(&vec![0; size]), NOTHING, "{size}");
        assert!(of(&vec![0xff; size]).file_system.is_none(), "{size}");
        let mut disk = vec![0; size];
        disk.splice(..size.min(4), *b"XFSB".first_chunk::<4>().filter(|_| size >= 4).unwrap_or(b"\0\0\0\0"));
        disk.truncate(size);
        assert!(of(&disk).refusal.is_none(), "{size}");
    }
}

/// An ext4 as the contents, with a label and something at another place.
fn ext4_and(place: usize, bytes: &[u8]) -> Vec<u8> {
    let mut disk = vec![0; 64 << 20];
    put(&mut disk, 0x438, b"\x53\xef");
    put(&mut disk, 0x478, b"state");
    put(&mut disk, place, bytes);
    disk
}

fn md(version: u8, place: usize) -> Vec<u8> {
    ext4_and(place, &[0xfc, 0x4e, 0x2b, 0xa9, version, 0, 0, 0])
}

#[test]
fn a_2_the_file_system_inside_of_a_member_is_known_and_not_mounted() {
    let end = 64 << 20;
    for disk in [
        md(0, end - 0x1_0000),
        md(1, end - 0x2000),
        md(1, 0x1000),
        ext4_and(end - 0x1_0000, b"\xa9\x2b\x4e\xfc\0\0\0\0"),
    ] {
        let contents = of(&disk);
        assert_eq!(contents.refusal.as_deref(), Some("a member of a Linux RAID, linux_raid_member"));
        assert_eq!(contents.file_system.unwrap().label, "state");
    }
    for (place, bytes, why) in [
        (end - 0xfc4, &b"\x83\x74\x02\x6b"[..], "the disk of a DRBD device, drbd"),
        (0x218, b"LVM2 001", "a physical volume of LVM, LVM2_member"),
        (0x4000, b"SKUL\xba\xbe", "encrypted with LUKS, crypto_LUKS"),
        (end - 0x400, b"Intel Raid ISM Cfg Sig. ", "a part of another device, isw_raid_member"),
        (0, b"XFSB", "of several kinds at once, xfs and ext4"),
        (0x1018, b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca", "of several kinds at once, bcache and ext4"),
        (end - 0x3_bfec, b"\0\0\0\x07version", "of several kinds at once, ext4 and zfs_member"),
        (0x8001, b"CD001", "of several kinds at once, ext4 and iso9660"),
    ] {
        assert_eq!(reason(&ext4_and(place, bytes)), why);
    }
}

#[test]
fn a_2_the_superblock_of_a_partition_is_not_that_of_the_disk() {
    let end: usize = 64 << 20;
    let mut disk = md(0, end - 0x1_0000);
    put(&mut disk, 510, b"\x55\xaa");
    // A partition of type fd from sector 2048 to the end.
    put(&mut disk, 446, b"\0\0\0\0\xfd\0\0\0\0\x08\0\0\0\xf8\x01\0");
    assert_eq!(of(&disk).refusal, None);
    // The same bytes on the partition itself.
    let read = |buffer: &mut [u8], place: u64| {
        let place = usize::try_from(place).unwrap();
        buffer.copy_from_slice(&disk[place..place + buffer.len()]);
        Ok(())
    };
    let partition = recognize(&Source { size: end as u64, is_disk: false, read: &read }).unwrap();
    assert_eq!(partition.refusal.as_deref(), Some("a member of a Linux RAID, linux_raid_member"));
    // One that ends before it.
    put(&mut disk, 446 + 12, b"\0\xf0\x01\0");
    assert!(of(&disk).refusal.is_some());
}

#[test]
fn a_2_leftovers_without_their_header_do_not_count() {
    for (place, bytes) in [(0xfff6, &b"SWAPSPACE2"[..]), (0x52, b"FAT32   "), ((64 << 20) - 0x200, b"\x55\xaa\x01")] {
        assert_eq!(of(&ext4_and(place, bytes)).refusal, None, "{bytes:?}");
    }
    let mut disk = vec![0; 1 << 20];
    put(&mut disk, 0xfff6, b"SWAPSPACE2");
    put(&mut disk, 0x400, &[1, 0, 0, 0, 7, 0, 0, 0]);
    assert_eq!(reason(&disk), "swap space, swap");
}

#[test]
fn members_of_a_firmwares_array_are_disks() {
    let mut disk = vec![0; 4 << 20];
    let end = disk.len();
    put(&mut disk, end - 0x200, b"$XIDE$");
    let read = |buffer: &mut [u8], place: u64| {
        let place = usize::try_from(place).unwrap();
        buffer.copy_from_slice(&disk[place..place + buffer.len()]);
        Ok(())
    };
    for is_disk in [true, false] {
        let contents = recognize(&Source { size: end as u64, is_disk, read: &read }).unwrap();
        assert_eq!(contents.refusal.is_some(), is_disk);
    }
}

#[test]
fn a_6_a_place_that_cannot_be_read_is_an_error() {
    let read = |_: &mut [u8], place: u64| if place < 1 << 20 { Ok(()) } else { Err(io::Error::other("dead")) };
    assert!(recognize(&Source { size: 64 << 20, is_disk: true, read: &read }).is_err());
}

fn file(path: &Path) -> Contents {
    of(&std::fs::read(path).unwrap())
}

fn made(size: u64, command: &[&str]) -> NamedTempFile {
    let image = NamedTempFile::new().unwrap();
    image.as_file().set_len(size).unwrap();
    let output = Command::new(command[0]).args(&command[1..]).arg(image.path()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    image
}

#[test]
fn an_ext4_as_others_make_it() {
    let uuid = "01234567-89ab-cdef-0123-456789abcdef";
    let image = made(4 << 20, &["/sbin/mkfs.ext4", "-q", "-F", "-L", "state", "-U", uuid]);
    let expected = DiskFileSystem { kind: "ext4", uuid: uuid.into(), label: "state".into() };
    assert_eq!(file(image.path()), Contents { refusal: None, file_system: Some(expected) });
    let journal = made(8 << 20, &["/sbin/mke2fs", "-q", "-F", "-O", "journal_dev"]);
    let refusal = Some("the journal of another file system, jbd".into());
    assert_eq!(file(journal.path()), Contents { refusal, file_system: None });
}

#[test]
fn a_2_swap_space_of_every_page_size() {
    for page in ["4096", "8192", "16384", "32768", "65536"] {
        let image = made(2 << 20, &["/sbin/mkswap", "-q", "--pagesize", page]);
        assert_eq!(file(image.path()).refusal.as_deref(), Some("swap space, swap"), "{page}");
        // An ext4 made over it: of the largest pages the magic number is still there.
        let mkfs = Command::new("/sbin/mkfs.ext4").args(["-q", "-F"]).arg(image.path()).status().unwrap();
        assert!(mkfs.success());
        assert_eq!(file(image.path()).refusal, None, "{page}");
    }
}
