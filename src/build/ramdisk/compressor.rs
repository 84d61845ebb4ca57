//! The compression of the ramdisk's segment of firn. The kernel unpacks each of these if it is configured with it (`CONFIG_RD_…`).

use crate::build::store::packing::Profile;
use crate::formats::lz4;
use anyhow::{Result, ensure};
use clap::ValueEnum;
use flate2::Compression;
use flate2::write::GzEncoder;
use liblzma::stream::{Check, Filters, LzmaOptions, Stream};
use liblzma::write::XzEncoder;
use std::io::{self, Read, Write};
use zstd::zstd_safe::CParameter;

/// The window of zstd and xz and the size of their tables, as a power of two. A larger one saves next to nothing, and needs 100 MB
/// of memory in the build, and memory for the window in the booting machine.
const WINDOW: u32 = 22;

/// A compressor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Compressor {
    /// Unpacked fast; needs Linux 5.9 or newer
    Zstd,
    /// The smallest ramdisk, and the slowest to unpack
    Xz,
    /// Supported by every kernel
    Gzip,
    /// The fastest to unpack, and the largest compressed ramdisk; has no levels
    Lz4,
    /// No compression; has no levels
    None,
}

impl Compressor {
    /// The level to compress with: `asked`, or that of the profile, which is a fast one or the best.
    ///
    /// # Errors
    ///
    /// A level that the compressor does not have.
    pub fn level(self, asked: Option<u32>, profile: Profile) -> Result<u32> {
        let (name, levels, fast) = match self {
            Self::Zstd => ("zstd", 1..=19, 3),
            Self::Xz => ("xz", 0..=9, 1),
            Self::Gzip => ("gzip", 1..=9, 1),
            Self::Lz4 | Self::None => {
                ensure!(asked.is_none(), "the compressors lz4 and none have no levels; leave out --compressor-level");
                return Ok(0);
            }
        };
        let of_profile = if profile == Profile::Dev { fast } else { *levels.end() };
        let level = asked.unwrap_or(of_profile);
        ensure!(
            levels.contains(&level),
            "{name} has no level {level}; give a --compressor-level from {} to {}",
            levels.start(),
            levels.end()
        );
        Ok(level)
    }

    /// Compresses `input` to `out`, with a [`level`](Self::level) that it has.
    ///
    /// # Errors
    ///
    /// Those of `input` and `out`.
    pub fn compress(self, level: u32, mut input: impl Read, mut out: impl Write) -> Result<()> {
        match self {
            Self::Zstd => {
                let mut encoder = zstd::Encoder::new(out, level.try_into()?)?;
                if level > 12 {
                    for limit in
                        [CParameter::WindowLog(WINDOW), CParameter::ChainLog(WINDOW), CParameter::HashLog(WINDOW - 1)]
                    {
                        encoder.set_parameter(limit)?;
                    }
                }
                io::copy(&mut input, &mut encoder)?;
                encoder.finish()?;
            }
            Self::Xz => {
                let mut options = LzmaOptions::new_preset(level)?;
                if level > 4 {
                    options.dict_size(1 << WINDOW);
                }
                let mut filters = Filters::new();
                filters.lzma2(&options);
                // The kernel cannot unpack xz with its default check, CRC64 (lib/xz/xz_dec_stream.c).
                let mut encoder = XzEncoder::new_stream(out, Stream::new_stream_encoder(&filters, Check::Crc32)?);
                io::copy(&mut input, &mut encoder)?;
                encoder.finish()?;
            }
            Self::Gzip => {
                let mut encoder = GzEncoder::new(out, Compression::new(level));
                io::copy(&mut input, &mut encoder)?;
                encoder.finish()?;
            }
            Self::Lz4 => {
                out.write_all(&lz4::MAGIC)?;
                loop {
                    let mut block = Vec::new();
                    input.by_ref().take(lz4::BLOCK as u64).read_to_end(&mut block)?;
                    if block.is_empty() {
                        break;
                    }
                    let compressed = lz4_flex::block::compress(&block);
                    out.write_all(&u32::try_from(compressed.len())?.to_le_bytes())?;
                    out.write_all(&compressed)?;
                }
            }
            Self::None => {
                io::copy(&mut input, &mut out)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn levels() {
        for (compressor, asked, profile, expected) in [
            (Compressor::Zstd, None, Profile::Release, Some(19)),
            (Compressor::Zstd, None, Profile::Dev, Some(3)),
            (Compressor::Zstd, Some(7), Profile::Dev, Some(7)),
            (Compressor::Zstd, Some(20), Profile::Dev, None),
            (Compressor::Xz, Some(0), Profile::Release, Some(0)),
            (Compressor::Gzip, Some(0), Profile::Release, None),
            (Compressor::None, None, Profile::Release, Some(0)),
            (Compressor::Lz4, Some(1), Profile::Release, None),
        ] {
            assert_eq!(compressor.level(asked, profile).ok(), expected, "{compressor:?} {asked:?}");
        }
    }

    /// The kernel unpacks xz without a check or with CRC32, and refuses CRC64, the default of xz.
    #[test]
    fn xz_has_the_check_that_the_kernel_knows() {
        const CRC32: [u8; 2] = [0x00, 0x01];
        for level in [0, 9] {
            let mut compressed = Vec::new();
            Compressor::Xz.compress(level, &b"firn"[..], &mut compressed).unwrap();
            // The header: the magic number, then two bytes of flags (xz-file-format.txt, "Stream Header").
            assert_eq!(compressed[..6], *b"\xfd7zXZ\0");
            assert_eq!(compressed[6..8], CRC32);
        }
    }

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
            let level = compressor.level(None, Profile::Dev).unwrap();
            compressor.compress(level, input.as_slice(), file.reopen().unwrap()).unwrap();
            let mut arguments = reader.split(' ');
            let mut command = Command::new(arguments.next().unwrap());
            let output =
                command.args(arguments).stdin(file.reopen().unwrap()).stderr(Stdio::inherit()).output().unwrap();
            assert!(output.status.success() && output.stdout == input, "{reader}");
        }
    }
}
