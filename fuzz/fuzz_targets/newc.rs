//! A ramdisk: whatever is in it, what was read lies in it, in order and where it says.
#![no_main]

use firn::inspect::ramdisk::read;
use libfuzzer_sys::fuzz_target;
use std::io::Cursor;

fuzz_target!(|ramdisk: &[u8]| {
    let mut members = 0;
    let segments = read(Cursor::new(ramdisk), &mut |entry, contents| {
        members += 1;
        // As often as not, so that both ways to the next member are tried.
        let Some(offset) = entry.offset.filter(|_| members % 2 == 0) else { return Ok(()) };
        let mut bytes = Vec::new();
        contents.read_to_end(&mut bytes)?;
        assert!(bytes.len() as u64 <= entry.bytes);
        assert!(ramdisk[offset as usize..].starts_with(&bytes));
        Ok(())
    });
    if let Ok(segments) = segments {
        assert_eq!(segments.iter().map(|segment| segment.members).sum::<usize>(), members);
        let ends = segments.iter().map(|segment| segment.offset + segment.packed);
        let starts = segments.iter().skip(1).map(|segment| segment.offset).chain([ramdisk.len() as u64]);
        assert!(ends.zip(starts).all(|(end, start)| end <= start));
    }
});
