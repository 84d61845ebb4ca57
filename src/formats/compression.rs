//! The compression of a segment of a ramdisk: the kernel tells it by the first bytes (lib/decompress.c of Linux 6.12), and so does
//! this.

use crate::formats::lz4;
use crate::formats::magic::{self, FileKind};
use anyhow::{Result, bail};
use flate2::bufread::GzDecoder;
use liblzma::bufread::XzDecoder;
use liblzma::stream::Stream;
use serde::Serialize;
use std::fmt;
use std::io::{BufRead, Read};

/// As many of the first bytes of a segment as [`SegmentCompression::of`] needs.
pub const LENGTH: usize = 6;

/// The most memory for one segment of xz or lzma, bytes: `xz -9` needs 65 MiB, and damaged headers ask for 4 GiB.
const XZ_MEMORY: u64 = 128 << 20;

/// A compression that the kernel unpacks, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the names are those of the tools")]
pub enum SegmentCompression {
    None,
    Gzip,
    Bzip2,
    Lzma,
    Xz,
    Lzo,
    Lz4,
    Zstd,
}

impl SegmentCompression {
    /// The compression of a segment that begins with these bytes.
    #[must_use]
    pub fn of(start: &[u8]) -> Option<Self> {
        match magic::recognize(start.get(..LENGTH).unwrap_or(start))? {
            FileKind::Cpio => Some(Self::None),
            FileKind::Gzip => Some(Self::Gzip),
            FileKind::Bzip2 => Some(Self::Bzip2),
            FileKind::Lzma => Some(Self::Lzma),
            FileKind::Xz => Some(Self::Xz),
            FileKind::Lzo => Some(Self::Lzo),
            FileKind::Lz4 => Some(Self::Lz4),
            FileKind::Zstd => Some(Self::Zstd),
            _ => None,
        }
    }

    /// Unpacks the input. It reads not a byte beyond the end of the segment.
    ///
    /// # Errors
    ///
    /// bzip2 and lzo, which firn does not unpack.
    pub fn unpack<'a>(self, input: impl BufRead + 'a) -> Result<Box<dyn Read + 'a>> {
        Ok(match self {
            Self::None => Box::new(input),
            Self::Gzip => Box::new(GzDecoder::new(input)),
            Self::Lzma => Box::new(XzDecoder::new_stream(input, Stream::new_lzma_decoder(XZ_MEMORY)?)),
            Self::Xz => Box::new(XzDecoder::new_stream(input, Stream::new_stream_decoder(XZ_MEMORY, 0)?)),
            Self::Lz4 => Box::new(lz4::Decoder::new(input)),
            Self::Zstd => Box::new(zstd::Decoder::with_buffer(input)?.single_frame()),
            Self::Bzip2 | Self::Lzo => {
                bail!("it is compressed with {self}, which firn does not unpack; cut it out and unpack it with {self}")
            }
        })
    }
}

impl fmt::Display for SegmentCompression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Bzip2 => "bzip2",
            Self::Lzma => "lzma",
            Self::Xz => "xz",
            Self::Lzo => "lzo",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        })
    }
}
