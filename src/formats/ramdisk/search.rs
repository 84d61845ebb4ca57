//! The search for the next segment behind one that firn cannot unpack.

use crate::formats::magic::{LZ4, NEWC, NEWC_WITH_CHECKSUM};
use crate::formats::newc::{HEADER, Member};
use crate::formats::ramdisk::source::{ArchiveSource, FileSource};
use std::io::{self, Read, Seek};

/// As many bytes are searched at once.
const WINDOW: u64 = 64 << 10;

/// Goes to the next multiple of four where a segment seems to begin, or to the end of the file. Returns the offset.
///
/// # Errors
///
/// Those of reading.
pub fn next_segment(input: &mut FileSource<impl Read + Seek>) -> io::Result<Option<u64>> {
    let mut offset = (input.position() + 1).next_multiple_of(4);
    loop {
        input.go_to(offset)?;
        let bytes = input.peek(WINDOW)?;
        let found = bytes.chunks(4).zip(0_u64..).find(|(_, number)| {
            let place = usize::try_from(4 * number).unwrap_or(usize::MAX);
            bytes.get(place..).is_some_and(begins_segment)
        });
        if let Some((_, number)) = found {
            input.go_to(offset + 4 * number)?;
            return Ok(Some(offset + 4 * number));
        }
        if (bytes.len() as u64) < WINDOW {
            return input.go_to(offset + bytes.len() as u64).map(|()| None);
        }
        // A header that begins at the end of the window is seen in the next one.
        offset += WINDOW - HEADER.next_multiple_of(4) as u64;
    }
}

/// Whether bytes begin like a segment. It asks for more than the kernel does, because any bytes may be here.
fn begins_segment(bytes: &[u8]) -> bool {
    if bytes.starts_with(NEWC) || bytes.starts_with(NEWC_WITH_CHECKSUM) {
        let header = bytes.get(..HEADER).and_then(|header| <&[u8; HEADER]>::try_from(header).ok());
        return header.is_some_and(|header| Member::of_header(header).is_ok());
    }
    let starts: [&[u8]; 5] = [b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", &LZ4, b"\x1f\x8b\x08\0", b"\x1f\x8b\x08\x08"];
    starts.iter().any(|start| bytes.starts_with(start))
}
