//! The bytes of archives: from the file of a ramdisk, or from a compressed segment of it. Both count the bytes and can skip some.

use crate::formats::ramdisk::Offset;
use crate::formats::xz::Refusal;
use anyhow::Result;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};

/// As many of the first bytes of a segment as tell its compression, and as a message shows.
pub const START: u64 = 64;

/// A stream of archives.
pub trait ArchiveSource: Read {
    /// The number of bytes that were read or skipped.
    fn position(&self) -> u64;
    /// The place of the next byte.
    fn at(&self) -> Offset;
    /// Skips bytes.
    ///
    /// # Errors
    ///
    /// Those of reading, and a stream that ends before.
    fn skip(&mut self, bytes: u64) -> io::Result<()>;
}

/// The file of a ramdisk.
pub struct FileSource<R> {
    reader: BufReader<R>,
    position: u64,
    length: u64,
}

impl<R: Read + Seek> FileSource<R> {
    /// Begins at the start of the file.
    ///
    /// # Errors
    ///
    /// A file that cannot seek.
    pub fn new(mut file: R) -> Result<Self> {
        let length = file.seek(SeekFrom::End(0))?;
        file.rewind()?;
        Ok(Self { reader: BufReader::with_capacity(1 << 16, file), position: 0, length })
    }

    /// The next bytes, at most as many. They are not read.
    ///
    /// # Errors
    ///
    /// Those of reading.
    pub fn peek(&mut self, bytes: u64) -> io::Result<Vec<u8>> {
        let mut start = Vec::new();
        self.reader.by_ref().take(bytes).read_to_end(&mut start)?;
        self.reader.seek_relative(-start.len().cast_signed() as i64)?;
        Ok(start)
    }

    /// Goes to an offset, or to the end of the file if that comes first.
    ///
    /// # Errors
    ///
    /// Those of the file.
    pub fn go_to(&mut self, offset: u64) -> io::Result<()> {
        self.position = self.reader.seek(SeekFrom::Start(offset.min(self.length)))?;
        Ok(())
    }
}

impl<R: Read + Seek> BufRead for FileSource<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.reader.fill_buf()
    }

    fn consume(&mut self, bytes: usize) {
        self.position += bytes as u64;
        self.reader.consume(bytes);
    }
}

impl<R: Read + Seek> Read for FileSource<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let bytes = self.reader.read(out)?;
        self.position += bytes as u64;
        Ok(bytes)
    }
}

impl<R: Read + Seek> ArchiveSource for FileSource<R> {
    fn position(&self) -> u64 {
        self.position
    }

    fn at(&self) -> Offset {
        Offset { offset: self.position, within: None }
    }

    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        // Seeking beyond the end is no error.
        if bytes > self.length.saturating_sub(self.position) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.position += bytes;
        self.reader.seek_relative(i64::try_from(bytes).map_err(io::Error::other)?)
    }
}

/// A compressed segment.
pub struct StreamSource<'a> {
    stream: BufReader<Box<dyn Read + 'a>>,
    position: u64,
    /// The offset of the segment, bytes.
    segment: u64,
}

impl<'a> StreamSource<'a> {
    /// Begins at the start of a stream that unpacks the segment at this offset. It fails where the kernel refuses to go on.
    pub fn new(stream: Box<dyn Read + 'a>, segment: u64, refusal: Option<Refusal>) -> Self {
        let stream = match refusal {
            None => stream,
            Some(Refusal { unpacked, reason }) => Box::new(stream.take(unpacked).chain(Refused(reason))),
        };
        Self { stream: BufReader::new(stream), position: 0, segment }
    }
}

/// The place where the kernel refuses to unpack.
struct Refused(String);

impl Read for Refused {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::other(self.0.clone()))
    }
}

impl Read for StreamSource<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let bytes = self.stream.read(out)?;
        self.position += bytes as u64;
        Ok(bytes)
    }
}

impl BufRead for StreamSource<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.stream.fill_buf()
    }

    fn consume(&mut self, bytes: usize) {
        self.position += bytes as u64;
        self.stream.consume(bytes);
    }
}

impl ArchiveSource for StreamSource<'_> {
    fn position(&self) -> u64 {
        self.position
    }

    fn at(&self) -> Offset {
        Offset { offset: self.segment, within: Some(self.position) }
    }

    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        let skipped = io::copy(&mut self.take(bytes), &mut io::sink())?;
        if skipped == bytes { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

/// Reads `bytes` bytes, or fewer at the end of the source.
///
/// # Errors
///
/// Those of reading.
pub fn up_to(source: &mut dyn ArchiveSource, bytes: u64) -> io::Result<Vec<u8>> {
    let mut read = Vec::new();
    source.take(bytes).read_to_end(&mut read)?;
    Ok(read)
}

/// Skips zeros. False if there is nothing after them.
///
/// # Errors
///
/// Those of reading.
pub fn skip_zeros(source: &mut impl BufRead) -> io::Result<bool> {
    loop {
        let buffer = source.fill_buf()?;
        if buffer.is_empty() {
            return Ok(false);
        }
        let zeros = buffer.iter().take_while(|byte| **byte == 0).count();
        let found = zeros < buffer.len();
        source.consume(zeros);
        if found {
            return Ok(true);
        }
    }
}
