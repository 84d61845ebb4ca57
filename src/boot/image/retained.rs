//! Retained store images, which stay where the boot loader puts them: the kernel keeps the ramdisk in memory and shows it as the file
//! [`INITRD`]. In it, the image is a member of a cpio archive that the kernel did not unpack.

use crate::boot::image::expected::ExpectedImage;
use crate::boot::image::sentences::{incomplete, of_another_build};
use crate::boot::kernel::command_line;
use crate::boot::kernel::loop_device::Backing;
use crate::boot::kernel::memory;
use crate::boot::kernel::release::kernel_release;
use crate::contract::parameters::RETAIN;
use crate::contract::place::{INITRD, Place};
use crate::formats::newc::{HEADER, Member, TRAILER, name, padding};
use anyhow::{Context, Result, bail, ensure};
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The size of a read in the search for an archive, bytes.
const CHUNK: usize = 64 << 10;

/// Finds an image in the ramdisk in memory. It looks first in an archive of `archive` bytes at the end of the ramdisk, where the builder
/// puts it, so that usually no search is needed; then anywhere.
///
/// # Errors
///
/// The kernel keeps no ramdisk, the ramdisk has no such image, or the image is incomplete or from another build.
pub fn find(image: &ExpectedImage, archive: Option<u64>) -> Result<Backing> {
    match File::open(INITRD) {
        Err(error) if error.kind() == ErrorKind::NotFound => bail!("{}", no_ramdisk(image)),
        other => find_in(other.with_context(|| format!("opening {INITRD}"))?, INITRD, image, archive),
    }
}

fn find_in(file: File, ramdisk: &str, image: &ExpectedImage, archive: Option<u64>) -> Result<Backing> {
    let place = &image.place;
    let size = file.metadata().with_context(|| format!("reading the size of {ramdisk}"))?.len();
    let likely = archive.and_then(|archive| size.checked_sub(archive)).unwrap_or_default();
    let found = search(&file, likely, size, Path::new(&place.path()));
    let Some((offset, bytes)) = found.with_context(|| format!("looking for {place} in {ramdisk}"))? else {
        bail!(
            "there is no store image {place}, neither unpacked nor in the {size} bytes of ramdisk in memory: give the machine the \
             whole ramdisk, or the image as a second ramdisk"
        );
    };
    let expected = image.bytes.unwrap_or(bytes);
    ensure!(bytes == expected, "the store image {place} has {bytes} bytes, but {}", of_another_build(expected));
    let arrived = size.saturating_sub(offset).min(bytes);
    ensure!(
        arrived == bytes,
        "the store image {place} is incomplete, {arrived} of {bytes} bytes are there: the boot loader loaded only a part of the \
         ramdisk; check the ramdisk file and the download"
    );
    log::info!("The store image {place} is in {ramdisk} at byte {offset}, where the boot loader put it");
    Ok(Backing::Part { file, path: ramdisk.into(), offset, bytes })
}

/// The reason why an image is missing, if the kernel keeps no ramdisk in memory.
fn no_ramdisk(image: &ExpectedImage) -> String {
    let place = &image.place;
    if let Place::Unpacked(path) = place {
        return match image.bytes {
            Some(bytes) => format!("there is no store image {path} in the ramdisk: {}", incomplete(bytes)),
            None => {
                format!("there is no store image {path} in the ramdisk: add it, or name another path with firn.store=")
            }
        };
    }
    let reason = if command_line::now().iter().any(|word| word == (RETAIN, None)) {
        let release = kernel_release().unwrap_or_default();
        format!("this kernel, {release}, does not keep the ramdisk in memory; build with --image-placement copy")
    } else {
        format!(
            "the kernel command line lacks {RETAIN}; boot with all parameters of manifest.json, or build with --image-placement \
             copy"
        )
    };
    format!(
        "the store image {place} is missing, because the kernel kept no ramdisk in memory: {reason}; {}",
        memory::summary(None)
    )
}

/// Searches for the member `path`: first in the archive that begins at `likely`, if there is one, then in the whole ramdisk. Returns the
/// offset and the size of its contents, bytes. An archive is read from header to header. The bytes between archives, zeros or
/// compressed segments, are searched for the next header.
fn search(ramdisk: &File, likely: u64, size: u64, path: &Path) -> io::Result<Option<(u64, u64)>> {
    let begin = if member(ramdisk, likely)?.is_some() { likely } else { 0 };
    let mut at = begin;
    while let Some(header) = next_header(ramdisk, at, size)? {
        let Some((entry, contents)) = member(ramdisk, header)? else {
            at = header + 4; // These bytes only look like a header.
            continue;
        };
        if entry.is_at(path) {
            return Ok(Some((contents, entry.bytes)));
        }
        at = contents + entry.bytes;
        at += padding(at);
        if entry.path == Path::new(TRAILER) {
            at = contents;
        }
    }
    // The archive at `likely` is that of another build: the ramdisk holds two of them.
    if begin > 0 { search(ramdisk, 0, size, path) } else { Ok(None) }
}

/// The offset of the next four bytes from `at` on that look like the start of a header. Headers begin on multiples of four, as the
/// kernel demands.
fn next_header(ramdisk: &File, mut at: u64, size: u64) -> io::Result<Option<u64>> {
    let mut chunk = vec![0; HEADER];
    while at + HEADER as u64 <= size {
        let read = fill(ramdisk, &mut chunk, at)?;
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
fn member(ramdisk: &File, at: u64) -> io::Result<Option<(Member, u64)>> {
    let mut header = [0; HEADER];
    if fill(ramdisk, &mut header, at)? < HEADER {
        return Ok(None);
    }
    let Ok((mut entry, length)) = Member::of_header(&header) else { return Ok(None) };
    let mut bytes = vec![0; length as usize];
    let begin = at + HEADER as u64;
    if fill(ramdisk, &mut bytes, begin)? < bytes.len() {
        return Ok(None);
    }
    let Ok(path) = name(bytes) else { return Ok(None) };
    entry.path = path;
    let contents = begin + u64::from(length);
    Ok(Some((entry, contents + padding(contents))))
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
    use std::io::Write;

    fn member(name: &str, nuls: usize, contents: &[u8]) -> Vec<u8> {
        let numbers = [1, 0o100_444, 0, 0, 1, 0, contents.len(), 0, 0, 0, 0, name.len() + 1 + nuls, 0];
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

    fn found(ramdisk: &[u8], likely: u64, path: &str) -> Option<Vec<u8>> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(ramdisk).unwrap();
        let (offset, bytes) = search(&file, likely, ramdisk.len() as u64, Path::new(path)).unwrap()?;
        let mut contents = vec![0; usize::try_from(bytes).unwrap()];
        file.read_exact_at(&mut contents, offset).unwrap();
        Some(contents)
    }

    #[test]
    fn images_wherever_they_are() {
        let image = member("firn-retained/image", 3000, b"the image");
        let trailer = member(TRAILER, 0, b"");
        let archive = [&image[..], &trailer].concat();
        let other = [&member("init", 0, b"an init")[..], &trailer].concat();
        // A compressed segment with bytes that look like a header. It is longer than several chunks.
        let compressed = [&b"\x28\xb5\x2f\xfd0707"[..], &vec![7; 3 * CHUNK + 1], b"\0\0\0"].concat();
        for ramdisk in [
            archive.clone(),
            [&other[..], &archive].concat(),
            [&other[..], &[0; 5000], &archive].concat(),
            [&compressed[..], &archive].concat(),
            [&other[..], &compressed, &other, &archive, &compressed].concat(),
        ] {
            for likely in [0, 4, ramdisk.len() - archive.len(), ramdisk.len()] {
                let find = |path| found(&ramdisk, likely as u64, path);
                assert_eq!(find("/firn-retained/image").unwrap(), b"the image", "{likely}");
                assert_eq!(find("/firn-retained/imag"), None, "{likely}");
            }
        }
        for ramdisk in [&b""[..], b"0707", b"070701", &other, &compressed, &image[..200], &[0; 4096]] {
            assert_eq!(found(ramdisk, 0, "/firn-retained/image"), None);
        }
    }

    #[test]
    fn a_member_that_is_cut_off_is_found() {
        let mut file = tempfile::tempfile().unwrap();
        let image = member("firn-retained/image", 0, b"the image");
        file.write_all(&image[..image.len() - 8]).unwrap();
        let length = image.len() as u64 - 8;
        let (offset, bytes) = search(&file, 0, length, Path::new("/firn-retained/image")).unwrap().unwrap();
        assert_eq!((offset, bytes), (length - 4, 9));
        let image = |bytes| ExpectedImage { place: Place::Retained("image".into()), bytes, sha256: None };
        for (bytes, expected) in
            [(None, "4 of 9 bytes are there"), (Some(9), "4 of 9 bytes"), (Some(8), "from different builds")]
        {
            let error =
                find_in(file.try_clone().unwrap(), "it", &image(bytes), None).map(|_| ()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
