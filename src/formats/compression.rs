//! How a segment of a ramdisk is compressed: the kernel goes by the first bytes (lib/decompress.c of Linux 6.12), and so does this.

use crate::formats::lz4;
use anyhow::{Result, bail};
use flate2::bufread::GzDecoder;
use liblzma::bufread::XzDecoder;
use liblzma::stream::Stream;
use serde::Serialize;
use std::fmt;
use std::io::{BufRead, Read};

/// How many of the first bytes it takes.
pub const MAGIC: usize = 4;

/// The most memory for one segment of xz or lzma, bytes: `xz -9` takes 65 MiB, and damaged headers ask for 4 GiB.
const XZ_MEMORY: u64 = 128 << 20;

/// A compression that the kernel knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "they are called what they are called")]
pub enum Compression {
    None,
    Gzip,
    Bzip2,
    Lzma,
    Xz,
    Lzo,
    Lz4,
    Zstd,
}

const MAGICS: [(&[u8], Compression); 9] = [
    (b"0707", Compression::None),
    (b"\x1f\x8b", Compression::Gzip),
    (b"\x1f\x9e", Compression::Gzip),
    (b"BZh", Compression::Bzip2),
    (b"\x5d\0\0", Compression::Lzma),
    (b"\xfd7zX", Compression::Xz),
    (b"\x89LZO", Compression::Lzo),
    (&lz4::MAGIC, Compression::Lz4),
    (b"\x28\xb5\x2f\xfd", Compression::Zstd),
];

impl Compression {
    /// What a segment is that begins with these bytes.
    #[must_use]
    pub fn of(start: &[u8]) -> Option<Self> {
        MAGICS.iter().find(|(magic, _)| start.starts_with(magic)).map(|(_, compression)| *compression)
    }

    /// What the input unpacks to. Not a byte is taken from it that does not belong to it.
    ///
    /// # Errors
    ///
    /// One of the two that firn does not unpack.
    pub fn unpack<'a>(self, input: impl BufRead + 'a) -> Result<Box<dyn Read + 'a>> {
        Ok(match self {
            Self::None => Box::new(input),
            Self::Gzip => Box::new(GzDecoder::new(input)),
            Self::Lzma => Box::new(XzDecoder::new_stream(input, Stream::new_lzma_decoder(XZ_MEMORY)?)),
            Self::Xz => Box::new(XzDecoder::new_stream(input, Stream::new_stream_decoder(XZ_MEMORY, 0)?)),
            Self::Lz4 => Box::new(lz4::Decoder::new(input)),
            Self::Zstd => Box::new(zstd::Decoder::with_buffer(input)?.single_frame()),
            Self::Bzip2 | Self::Lzo => {
                bail!("it is compressed with {self}, which firn does not unpack; cut it out and unpack it by hand")
            }
        })
    }
}

impl fmt::Display for Compression {
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
