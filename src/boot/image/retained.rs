//! Retained store images, which stay where the boot loader puts them: the kernel keeps the ramdisk in memory and shows it as the file
//! [`INITRD`]. In it, the image is a member of a cpio archive.

use crate::boot::image::expected::ExpectedImage;
use crate::boot::image::sentences::of_another_build;
use crate::boot::kernel::loop_device::Backing;
use crate::contract::place::INITRD;
use crate::formats::newc::{HEADER, Member, MemberKind, TRAILER, name, padding};
use anyhow::{Context, Result, ensure};
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The size of a read in the search for an archive, bytes.
const CHUNK: usize = 64 << 10;

/// The ramdisk in memory.
pub struct Retained {
    file: File,
    /// Its size, bytes.
    pub bytes: u64,
}

impl Retained {
    /// Opens it. `None` if the kernel keeps no ramdisk.
    ///
    /// # Errors
    ///
    /// Those of open(2) and fstat(2).
    pub fn open() -> Result<Option<Self>> {
        match File::open(INITRD) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            other => other.and_then(Self::of).map(Some).with_context(|| format!("opening {INITRD}")),
        }
    }

    fn of(file: File) -> io::Result<Self> {
        let bytes = file.metadata()?.len();
        Ok(Self { file, bytes })
    }

    /// Finds an image. It looks first in the archive of `archive` bytes at the end, where the builder puts it, so that usually no search
    /// is needed; then, with `everywhere`, in all of the ramdisk.
    ///
    /// # Errors
    ///
    /// Those of reading, and an image that is incomplete or from another build.
    pub fn find(&self, image: &ExpectedImage, archive: Option<u64>, everywhere: bool) -> Result<Option<Backing>> {
        let path = &image.path;
        let end = archive.and_then(|archive| self.bytes.checked_sub(archive));
        let search = |begin| self.search(begin, Path::new(path));
        let found = end.map_or(Ok(None), |end| Ok(self.member(end)?.map(|_| search(end)).transpose()?.flatten()));
        let found = match found {
            Ok(None) if everywhere => search(0),
            other => other,
        };
        let Some((offset, bytes)) = found.with_context(|| format!("looking for {path} in {INITRD}"))? else {
            return Ok(None);
        };
        let expected = image.bytes.unwrap_or(bytes);
        ensure!(bytes == expected, "the store image {path} has {bytes} bytes, but {}", of_another_build(expected));
        let arrived = self.bytes.saturating_sub(offset).min(bytes);
        ensure!(
            arrived == bytes,
            "the store image {path} is incomplete, {arrived} of {bytes} bytes are there: the boot loader loaded only a part of the \
             ramdisk; check the ramdisk file and the download"
        );
        let file = self.file.try_clone().with_context(|| format!("opening {INITRD} again"))?;
        Ok(Some(Backing::Part { file, path: INITRD.into(), offset, bytes }))
    }

    /// Searches for the member `path` from the offset `at` on. Returns the offset and the size of its contents, bytes. An archive is read
    /// from header to header. The bytes between archives, zeros or compressed segments, are searched for the next header.
    fn search(&self, mut at: u64, path: &Path) -> io::Result<Option<(u64, u64)>> {
        while let Some(header) = self.next_header(at)? {
            let Some((entry, contents)) = self.member(header)? else {
                at = header + 4; // These bytes only look like a header.
                continue;
            };
            // The mark of the image comes before it: a directory at the same path.
            if entry.kind == MemberKind::File && entry.is_at(path) {
                return Ok(Some((contents, entry.bytes)));
            }
            at = contents + entry.bytes;
            at += padding(at);
            if entry.path == Path::new(TRAILER) {
                at = contents;
            }
        }
        Ok(None)
    }

    /// The offset of the next four bytes from `at` on that look like the start of a header. Headers begin on multiples of four, as the
    /// kernel demands.
    fn next_header(&self, mut at: u64) -> io::Result<Option<u64>> {
        let mut chunk = vec![0; HEADER];
        while at + HEADER as u64 <= self.bytes {
            let read = fill(&self.file, &mut chunk, at)?;
            let found = chunk.get(..read).unwrap_or_default().chunks(4).zip(0..).find_map(|(four, number)| {
                // `member` checks the other two bytes of the magic number with the rest of the header.
                (four == b"0707").then_some(at + 4 * number)
            });
            if found.is_some() {
                return Ok(found);
            }
            if read < 4 {
                break;
            }
            at += read as u64 & !3;
            chunk.resize(CHUNK, 0); // The next header is not close: read larger chunks.
        }
        Ok(None)
    }

    /// The member whose header is at offset `at`, and the offset of its contents. `None` if there is no valid header.
    fn member(&self, at: u64) -> io::Result<Option<(Member, u64)>> {
        let mut header = [0; HEADER];
        if fill(&self.file, &mut header, at)? < HEADER {
            return Ok(None);
        }
        let Ok((mut entry, length)) = Member::of_header(&header) else { return Ok(None) };
        let mut bytes = vec![0; length as usize];
        let begin = at + HEADER as u64;
        if fill(&self.file, &mut bytes, begin)? < bytes.len() {
            return Ok(None);
        }
        let Ok(path) = name(bytes) else { return Ok(None) };
        entry.path = path;
        let contents = begin + u64::from(length);
        Ok(Some((entry, contents + padding(contents))))
    }
}

/// Reads until `buffer` is full or the file ends. A read from sysfs returns at most a page.
fn fill(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, at + filled as u64)? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    fn member(name: &str, nuls: usize, contents: &[u8]) -> Vec<u8> {
        member_of(0o100_444, name, nuls, contents)
    }

    fn member_of(mode: usize, name: &str, nuls: usize, contents: &[u8]) -> Vec<u8> {
        let numbers = [1, mode, 0, 0, 1, 0, contents.len(), 0, 0, 0, 0, name.len() + 1 + nuls, 0];
        let mut bytes = b"070701".to_vec();
        bytes.extend(numbers.iter().flat_map(|number| format!("{number:08x}").into_bytes()));
        bytes.extend(name.as_bytes());
        bytes.resize(bytes.len() + 1 + nuls, 0);
        for part in [&b""[..], contents] {
            bytes.extend(part);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        bytes
    }

    fn retained(ramdisk: &[u8]) -> Retained {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(ramdisk).unwrap();
        Retained::of(file).unwrap()
    }

    /// The contents of the image at a path, with an archive of `archive` bytes at the end of the ramdisk.
    fn found(ramdisk: &[u8], archive: usize, path: &str) -> Option<Vec<u8>> {
        let image = ExpectedImage::at(path);
        let found = retained(ramdisk).find(&image, Some(archive as u64), true).unwrap()?;
        let mut contents = Vec::new();
        found.read().unwrap().read_to_end(&mut contents).unwrap();
        Some(contents)
    }

    #[test]
    fn images_wherever_they_are() {
        let image = member("image", 3000, b"the image");
        let trailer = member(TRAILER, 0, b"");
        let archive = [&image[..], &trailer].concat();
        let other = [&member("init", 0, b"an init")[..], &trailer].concat();
        let mark = [&member_of(0o040_755, "image", 0, b"")[..], &member("image/zero-copy", 0, b""), &trailer].concat();
        // A compressed segment with bytes that look like a header. It is longer than several chunks.
        let compressed = [&b"\x28\xb5\x2f\xfd0707"[..], &vec![7; 3 * CHUNK + 1], b"\0\0\0"].concat();
        for (ramdisk, is_at_the_end) in [
            (archive.clone(), true),
            ([&other[..], &archive].concat(), true),
            ([&other[..], &[0; 5000], &archive].concat(), true),
            ([&compressed[..], &archive].concat(), true),
            ([&mark[..], &archive].concat(), true),
            ([&other[..], &compressed, &other, &archive, &compressed].concat(), false),
        ] {
            for bytes in [0, 4, archive.len(), ramdisk.len(), usize::MAX] {
                let find = |path| found(&ramdisk, bytes, path);
                assert_eq!(find("/image").unwrap(), b"the image", "{bytes}");
                assert_eq!(find("/imag"), None, "{bytes}");
            }
            let at_the_end = |bytes| {
                let found = retained(&ramdisk).find(&ExpectedImage::at("/image"), Some(bytes as u64), false);
                found.unwrap().is_some()
            };
            assert_eq!(at_the_end(archive.len()), is_at_the_end);
            assert!(!at_the_end(archive.len() + 4) || ramdisk.len() == archive.len());
        }
        for ramdisk in [&b""[..], b"0707", b"070701", &other, &mark, &compressed, &image[..200], &[0; 4096]] {
            assert_eq!(found(ramdisk, 0, "/image"), None);
        }
    }

    #[test]
    fn a_member_that_is_cut_off_is_found() {
        let image = member("image", 0, b"the image");
        let ramdisk = retained(&image[..image.len() - 8]);
        assert_eq!(ramdisk.search(0, Path::new("/image")).unwrap(), Some((ramdisk.bytes - 4, 9)));
        for (bytes, expected) in
            [(None, "4 of 9 bytes are there"), (Some(9), "4 of 9 bytes"), (Some(8), "from different builds")]
        {
            let image = ExpectedImage { bytes, ..ExpectedImage::at("/image") };
            let error = ramdisk.find(&image, None, true).map(drop).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
