//! Store images, disks, and the registration of store paths.

use firn::formats::disk::{self, Source};
use firn::formats::registration::{parse, unreferenced, write};
use firn::formats::store_image;

/// Superblocks of squashfs and erofs.
pub fn superblock(start: &[u8]) {
    if let Some(found) = store_image::recognize(start) {
        assert!(["squashfs", "erofs"].contains(&found.format));
    }
}

/// A disk is read only where it is, and it has at most one file system.
pub fn disk(bytes: &[u8]) {
    let read = |buffer: &mut [u8], place: u64| {
        let place = usize::try_from(place).unwrap();
        buffer.copy_from_slice(&bytes[place..][..buffer.len()]);
        Ok(())
    };
    for is_disk in [false, true] {
        let contents = disk::recognize(&Source { size: bytes.len() as u64, is_disk, read: &read }).unwrap();
        assert_eq!(contents.file_system.as_ref().map_or(36, |found| found.uuid.len()), 36);
    }
}

/// A registration can be written and read again, and the paths without references to them are those that the whole of it tells.
pub fn registration(text: &[u8]) {
    let Ok(text) = str::from_utf8(text) else { return };
    let found = unreferenced(text);
    if let Ok(all) = parse(text) {
        assert_eq!(parse(&write(&all)).unwrap(), all);
        let refers =
            |path: &str| all.iter().any(|other| other.path != path && other.references.iter().any(|to| to == path));
        let expected: Vec<_> = all.iter().map(|known| &known.path).filter(|path| !refers(path)).collect();
        assert_eq!(found.iter().collect::<Vec<_>>(), expected);
    }
}
