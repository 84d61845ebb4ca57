//! Ramdisks.

use firn::inspect::ramdisk::{self, Contents, Ramdisk};
use firn::inspect::unpack;
use std::fs;
use std::io::Cursor;
use std::path::Path;

/// The contents of each member lie in the ramdisk, in order and at the offset that is told.
pub fn read(bytes: &[u8]) {
    let mut members = 0;
    let read = ramdisk::read(Cursor::new(bytes), &mut |entry, contents| {
        members += 1;
        // As often as not, so that both ways to the next member are tried.
        let Some(offset) = entry.offset.filter(|_| members % 2 == 0) else { return Ok(()) };
        let mut found = Vec::new();
        contents.read_to_end(&mut found)?;
        assert!(found.len() as u64 <= entry.bytes);
        assert!(bytes[usize::try_from(offset)?..].starts_with(&found));
        Ok(())
    });
    if let Ok(Contents { segments, .. }) = read {
        // Those of which the kernel makes no file are not shown.
        assert!(members <= segments.iter().map(|segment| segment.members).sum::<usize>());
        let ends = segments.iter().map(|segment| segment.offset + segment.packed);
        let starts = segments.iter().skip(1).map(|segment| segment.offset).chain([bytes.len() as u64]);
        assert!(ends.zip(starts).all(|(end, start)| end <= start));
    }
}

/// A ramdisk is unpacked below its directory and nowhere else.
pub fn unpack(bytes: &[u8]) {
    // In memory: a file system on a disk is too slow for it.
    let memory = Path::new("/dev/shm");
    let directory = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
    let file = directory.path().join("initrd");
    fs::write(&file, bytes).unwrap();
    let (neighbour, inside) = (directory.path().join("neighbour"), directory.path().join("out"));
    fs::create_dir(&neighbour).unwrap();
    // It may refuse the ramdisk.
    drop(Ramdisk::open(&file).and_then(|ramdisk| unpack::unpack(&ramdisk, &inside, &mut |_| ())));
    assert_eq!(fs::read_dir(&neighbour).unwrap().count(), 0);
    let names: Vec<_> = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(names.iter().all(|name| ["initrd", "neighbour", "out"].iter().any(|known| name == known)), "{names:?}");
    assert_eq!(fs::read(&file).unwrap(), bytes);
}
