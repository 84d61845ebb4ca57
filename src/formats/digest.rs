//! Checksums: the builder computes them, stage 1 compares.

use sha2::{Digest, Sha256};
use std::io::{self, BufReader, Read, Write};

/// The size of a copy's buffer, bytes: with the 8 KiB of [`io::copy`] an image needs thirty times as many system calls.
const CHUNK: usize = 256 << 10;

/// Copies all of `reader` to `writer`. Returns the number of bytes.
///
/// # Errors
///
/// Those of both.
pub fn copy(reader: impl Read, writer: &mut impl Write) -> io::Result<u64> {
    io::copy(&mut BufReader::with_capacity(CHUNK, reader), writer)
}

/// Reads to the end. Returns the number of bytes, and their SHA-256 in hexadecimal digits.
///
/// # Errors
///
/// Those of the reader.
pub fn sha256(reader: impl Read) -> io::Result<(u64, String)> {
    let mut writer = Writer::new(io::sink());
    copy(reader, &mut writer)?;
    let (_, bytes, sha256) = writer.finish();
    Ok((bytes, sha256))
}

/// Passes bytes on to another writer, counts them and computes their checksum.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    bytes: u64,
    hasher: Sha256,
}

impl<W: Write> Writer<W> {
    /// A writer at its start.
    pub fn new(out: W) -> Self {
        Self { out, bytes: 0, hasher: Sha256::new() }
    }

    /// The number of bytes so far.
    #[cfg(feature = "builder")]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The other writer, the number of bytes, and their SHA-256 in hexadecimal digits.
    pub fn finish(self) -> (W, u64, String) {
        (self.out, self.bytes, hex::encode(self.hasher.finalize()))
    }
}

impl<W: Write> Write for Writer<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let length = self.out.write(buffer)?;
        self.hasher.update(buffer.get(..length).unwrap_or_default());
        self.bytes += length as u64;
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn digests() {
        let (bytes, sha256) = super::sha256(&b"abc"[..]).unwrap();
        assert_eq!(bytes, 3);
        // FIPS 180-2, appendix B.1
        assert_eq!(sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
