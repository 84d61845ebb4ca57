//! The compression of a segment of a ramdisk: the kernel tells it by the first bytes (lib/decompress.c of Linux 6.12), and so does
//! this.

use crate::formats::lz4;
use crate::formats::xz::{self, Refusal};
use anyhow::{Result, bail};
use bzip2::bufread::BzDecoder;
use flate2::bufread::DeflateDecoder;
use liblzma::bufread::XzDecoder;
use liblzma::stream::Stream;
use serde::Serialize;
use std::fmt;
use std::io::{self, BufRead, Read};

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
    /// The compression of a segment that begins with these bytes, of which the kernel compares two (`decompress_method`).
    #[must_use]
    pub fn as_the_kernel(start: &[u8]) -> Option<Self> {
        Some(match start.get(..2)? {
            b"\x1f\x8b" | b"\x1f\x9e" => Self::Gzip,
            b"BZ" => Self::Bzip2,
            b"\x5d\0" => Self::Lzma,
            b"\xfd7" => Self::Xz,
            b"\x89L" => Self::Lzo,
            b"\x02\x21" => Self::Lz4,
            b"\x28\xb5" => Self::Zstd,
            _ => return None,
        })
    }

    /// Settings that the kernel refuses in the segment that begins here, though other programs unpack it.
    ///
    /// # Errors
    ///
    /// Those of reading.
    pub fn refusal(self, segment: &mut impl Read) -> io::Result<Option<Refusal>> {
        match self {
            Self::Xz => xz::refusal(segment),
            _ => Ok(None),
        }
    }

    /// Unpacks the input. It reads not a byte beyond the end of the segment.
    ///
    /// # Errors
    ///
    /// lzo, which firn does not unpack.
    pub fn unpack<'a>(self, input: impl BufRead + 'a) -> Result<Box<dyn Read + 'a>> {
        Ok(match self {
            Self::None => Box::new(input),
            Self::Gzip => Box::new(Gzip { input: Some(input), inflate: None }),
            Self::Lzma => Box::new(XzDecoder::new_stream(input, Stream::new_lzma_decoder(XZ_MEMORY)?)),
            Self::Xz => Box::new(XzDecoder::new_stream(input, Stream::new_stream_decoder(XZ_MEMORY, 0)?)),
            Self::Lz4 => Box::new(lz4::Decoder::new(input)),
            Self::Zstd => Box::new(zstd::Decoder::with_buffer(input)?.single_frame()),
            Self::Bzip2 => Box::new(BzDecoder::new(input)),
            Self::Lzo => bail!("it is compressed with {self}, which firn does not unpack"),
        })
    }
}

/// gzip as the kernel reads it (`lib/decompress_inflate.c`): it skips a file name in the header and no other field, and compares neither
/// the checksum nor the size.
struct Gzip<R> {
    input: Option<R>,
    inflate: Option<DeflateDecoder<R>>,
}

impl<R: BufRead> Read for Gzip<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if let Some(mut input) = self.input.take() {
            let mut header = [0; 10];
            input.read_exact(&mut header)?;
            if !header.starts_with(b"\x1f\x8b\x08") {
                return Err(io::Error::other("it is no gzip of a kind that the kernel knows"));
            }
            if header[3] & 8 != 0 {
                input.skip_until(0)?;
            }
            self.inflate = Some(DeflateDecoder::new(input));
        }
        let Some(inflate) = &mut self.inflate else { return Ok(0) };
        let bytes = inflate.read(out)?;
        if bytes == 0 && !out.is_empty() {
            let ended = self.inflate.take();
            let mut rest = Vec::new();
            ended.map(DeflateDecoder::into_inner).map(|input| input.take(8).read_to_end(&mut rest)).transpose()?;
            if rest.len() < 8 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it ends too early"));
            }
        }
        Ok(bytes)
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
