//! How the ramdisk's own segment is compressed. The kernel takes each of these, if it is configured with it (`CONFIG_RD_…`).

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

/// How far back zstd and xz look, and how large their tables are, as a power of two: more makes hardly anything smaller, and
/// takes 100 MB of memory here, and what is looked back on in the booting machine.
const WINDOW: u32 = 22;

/// A compressor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Compressor {
    /// From Linux 5.9 on; unpacked fast
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
    /// The level to compress with: the one that is asked for, or what a profile wants, a fast one or the best.
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
                ensure!(asked.is_none(), "lz4 and none have no levels; leave out --compressor-level");
                return Ok(0);
            }
        };
        let of_profile = if profile == Profile::Dev { fast } else { *levels.end() };
        let level = asked.unwrap_or(of_profile);
        ensure!(
            levels.contains(&level),
            "{name} has no level {level}; give --compressor-level {} to {}",
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
                // Of the checks that xz has, the kernel knows this one.
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
            let mut words = reader.split(' ');
            let mut command = Command::new(words.next().unwrap());
            let output = command.args(words).stdin(file.reopen().unwrap()).stderr(Stdio::inherit()).output().unwrap();
            assert!(output.status.success() && output.stdout == input, "{reader}");
        }
    }
}
