//! How the ramdisk's own segment is compressed. The kernel takes each of these, if it is configured with it (`CONFIG_RD_…`).

use crate::inspect::lz4;
use anyhow::Result;
use clap::ValueEnum;
use flate2::Compression;
use flate2::write::GzEncoder;
use liblzma::stream::{Check, Stream};
use liblzma::write::XzEncoder;
use std::io::Write;

/// A compressor, at its highest level: the segment is small, and there is time.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Compressor {
    /// From Linux 5.9 on; unpacked fast
    #[default]
    Zstd,
    /// The smallest, and the slowest to unpack
    Xz,
    /// What every kernel knows
    Gzip,
    /// The largest, and the fastest to unpack
    Lz4,
    /// Not at all
    None,
}

impl Compressor {
    /// Compresses `input` to `out`.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn compress(self, input: &[u8], mut out: impl Write) -> Result<()> {
        match self {
            Self::Zstd => zstd::stream::copy_encode(input, out, 19)?,
            Self::Xz => {
                // Of the checks that xz has, the kernel knows this one.
                let mut encoder = XzEncoder::new_stream(out, Stream::new_easy_encoder(9, Check::Crc32)?);
                encoder.write_all(input)?;
                encoder.finish()?;
            }
            Self::Gzip => {
                let mut encoder = GzEncoder::new(out, Compression::best());
                encoder.write_all(input)?;
                encoder.finish()?;
            }
            Self::Lz4 => {
                out.write_all(&lz4::MAGIC)?;
                for block in input.chunks(lz4::BLOCK) {
                    let compressed = lz4_flex::block::compress(block);
                    out.write_all(&u32::try_from(compressed.len())?.to_le_bytes())?;
                    out.write_all(&compressed)?;
                }
            }
            Self::None => out.write_all(input)?,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn foreign_readers_read_them() {
        let input: Vec<u8> = (0..3_000_000_u32).flat_map(|number| (number / 7).to_le_bytes()).collect();
        for (compressor, reader) in [
            (Compressor::Zstd, "zstd -dc"),
            (Compressor::Xz, "xz -dc"),
            (Compressor::Gzip, "gzip -dc"),
            (Compressor::Lz4, "lz4 -dc"),
            (Compressor::None, "cat"),
        ] {
            let file = tempfile::NamedTempFile::new().unwrap();
            compressor.compress(&input, file.reopen().unwrap()).unwrap();
            let mut words = reader.split(' ');
            let mut command = Command::new(words.next().unwrap());
            let output = command.args(words).stdin(file.reopen().unwrap()).stderr(Stdio::inherit()).output().unwrap();
            assert!(output.status.success() && output.stdout == input, "{reader}");
        }
    }
}
