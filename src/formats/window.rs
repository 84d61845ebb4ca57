//! Pieces of a file, read as if they were a file of their own.

use std::io::{self, ErrorKind, Read, Seek, SeekFrom};

/// A part of a file, and zeros behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Its offset in the file, bytes.
    pub offset: u64,
    /// Its size, bytes.
    pub bytes: u64,
    /// The number of zeros that follow it.
    pub zeros: u64,
}

/// Pieces of a file, one after the other.
#[derive(Debug)]
pub struct Window<'a, R> {
    file: R,
    pieces: &'a [Piece],
    position: u64,
}

/// The size of pieces, bytes.
#[must_use]
pub fn length(pieces: &[Piece]) -> u64 {
    pieces.iter().fold(0, |sum, piece| sum.saturating_add(piece.length()))
}

/// The offset in the file of the byte at this offset in the pieces. None for a zero behind a piece, and behind the end.
#[must_use]
pub fn offset_in_file(pieces: &[Piece], offset: u64) -> Option<u64> {
    let (piece, within) = at(pieces, offset)?;
    (within < piece.bytes).then(|| piece.offset + within)
}

/// The piece with the byte at this offset, and the offset in the piece.
fn at(pieces: &[Piece], offset: u64) -> Option<(&Piece, u64)> {
    let mut within = offset;
    for piece in pieces {
        if within < piece.length() {
            return Some((piece, within));
        }
        within -= piece.length();
    }
    None
}

impl Piece {
    fn length(&self) -> u64 {
        self.bytes.saturating_add(self.zeros)
    }
}

impl<'a, R: Read + Seek> Window<'a, R> {
    /// Begins at the first piece.
    pub const fn new(file: R, pieces: &'a [Piece]) -> Self {
        Self { file, pieces, position: 0 }
    }
}

impl<R: Read + Seek> Read for Window<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some((piece, within)) = at(self.pieces, self.position) else { return Ok(0) };
        let is_zero = within >= piece.bytes;
        let left = if is_zero { piece.length() - within } else { piece.bytes - within };
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let buffer = buffer.get_mut(..most).unwrap_or_default();
        let read = if is_zero {
            buffer.fill(0);
            most
        } else {
            self.file.seek(SeekFrom::Start(piece.offset + within))?;
            self.file.read(buffer)?
        };
        self.position += read as u64;
        Ok(read)
    }
}

impl<R: Read + Seek> Seek for Window<'_, R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::End(distance) => length(self.pieces).checked_add_signed(distance),
            SeekFrom::Current(distance) => self.position.checked_add_signed(distance),
        };
        self.position = position.ok_or(ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    #[test]
    fn c_7_pieces_are_read_as_one_file() {
        let pieces = [
            Piece { offset: 2, bytes: 3, zeros: 1 },
            Piece { offset: 9, bytes: 0, zeros: 0 },
            Piece { offset: 0, bytes: 2, zeros: 0 },
        ];
        assert_eq!(length(&pieces), 6);
        let mut window = Window::new(Cursor::new(b"0123456789"), &pieces);
        let mut read = Vec::new();
        window.read_to_end(&mut read).unwrap();
        assert_eq!(read, b"234\x0001");
        let mut two = [0; 2];
        for (to, position, expected) in
            [(SeekFrom::Start(1), 1, b"34"), (SeekFrom::End(-2), 4, b"01"), (SeekFrom::Current(-5), 1, b"34")]
        {
            assert_eq!(window.seek(to).unwrap(), position);
            window.read_exact(&mut two).unwrap();
            assert_eq!(&two, expected, "{to:?}");
        }
        assert_eq!(window.seek(SeekFrom::Start(100)).unwrap(), 100);
        assert_eq!(window.read(&mut two).unwrap(), 0);
        window.seek(SeekFrom::Current(-101)).unwrap_err();
        let offsets: Vec<_> = (0..7).map(|offset| offset_in_file(&pieces, offset)).collect();
        assert_eq!(offsets, [Some(2), Some(3), Some(4), None, Some(0), Some(1), None]);
    }
}
