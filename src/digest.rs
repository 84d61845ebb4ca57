//! Checksums: the builder takes them, stage 1 compares.

use sha2::{Digest, Sha256};
use std::io::{self, Read};

/// Length, and SHA-256 in hexadecimal digits, of all that `reader` gives.
///
/// # Errors
///
/// Those of the reader.
pub fn sha256(mut reader: impl Read) -> io::Result<(u64, String)> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    let mut bytes = 0;
    loop {
        let length = reader.read(&mut buffer)?;
        if length == 0 {
            return Ok((bytes, hex::encode(hasher.finalize())));
        }
        hasher.update(buffer.get(..length).unwrap_or_default());
        bytes += length as u64;
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
