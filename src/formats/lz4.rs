//! lz4 as the kernel unpacks it: the "legacy" frames of the lz4 tool (`lz4 -l`, `lib/decompress_unlz4.c`).

pub use crate::formats::magic::LZ4 as MAGIC;

use std::io::{self, BufRead, Read};

/// Each block but the last one of a frame unpacks to this many bytes.
pub const BLOCK: usize = 8 << 20;

/// The largest that a packed block can be (`LZ4_COMPRESSBOUND`).
const LARGEST: usize = BLOCK + BLOCK / 255 + 16;

/// Unpacks such frames. They have no end mark: a block of size 0 ends them, or the end of the input.
pub struct Decoder<R> {
    input: R,
    block: Vec<u8>,
    /// How many bytes of the block are unpacked.
    length: usize,
    /// How many of these were read.
    place: usize,
}

impl<R: BufRead> Decoder<R> {
    /// A decoder for an input that begins with [`MAGIC`].
    pub fn new(input: R) -> Self {
        Self { input, block: vec![0; BLOCK], length: 0, place: 0 }
    }

    /// Unpacks the next block. False at the end.
    fn next_block(&mut self) -> io::Result<bool> {
        loop {
            let mut size = Vec::new();
            self.input.by_ref().take(4).read_to_end(&mut size)?;
            let Ok(size) = <[u8; 4]>::try_from(size.as_slice()) else {
                // The kernel takes up to three bytes for the start of the next segment, and skips zeros.
                let junk = size.iter().any(|byte| *byte != 0);
                return if junk { Err(io::Error::other("bytes that are no block follow it")) } else { Ok(false) };
            };
            // Another frame
            if size == MAGIC {
                continue;
            }
            let size = u32::from_le_bytes(size) as usize;
            if size == 0 {
                return Ok(false);
            }
            if size > LARGEST {
                return Err(io::Error::other(format!("a block of {size} bytes is larger than any block of lz4 -l")));
            }
            let mut packed = Vec::new();
            self.input.by_ref().take(size as u64).read_to_end(&mut packed)?;
            if packed.len() < size {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.length = lz4_flex::block::decompress_into(&packed, &mut self.block).map_err(io::Error::other)?;
            self.place = 0;
            return Ok(true);
        }
    }
}

impl<R: BufRead> Read for Decoder<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.place == self.length {
            if !self.next_block()? {
                return Ok(0);
            }
        }
        let mut rest = self.block.get(self.place..self.length).unwrap_or_default();
        let length = rest.read(out)?;
        self.place += length;
        Ok(length)
    }
}
