//! Locates a store image and checks that it is complete.

use crate::boot::image::expected::ExpectedImage;
use crate::boot::image::retained::Retained;
use crate::boot::image::sentences::{incomplete, missing, of_another_build};
use crate::boot::kernel::child;
use crate::boot::kernel::left_out;
use crate::boot::kernel::loop_device::Backing;
use crate::contract::parameters::RETAIN;
use crate::contract::place::{ZERO_COPY, mark};
use anyhow::{Context, Result, bail, ensure};
use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::os::linux::fs::MetadataExt;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// The time limit for a device to answer.
const ANSWER: Duration = Duration::from_secs(30);

/// Locates an image: a part of the ramdisk in memory, or a file that the kernel unpacked. `archive` is the size of the archive of
/// images at the end of the ramdisk, bytes, if it is known.
///
/// # Errors
///
/// An image that is missing, incomplete, or from another build than the plan.
pub fn locate(image: &ExpectedImage, archive: Option<u64>) -> Result<Backing> {
    let path = image.path.as_str();
    let ramdisk = Retained::open()?;
    // The image is usually at the end and not unpacked.
    if let Some(ramdisk) = &ramdisk
        && let Some(found) = ramdisk.find(image, archive, false)?
    {
        free_double(path);
        return Ok(found);
    }
    if let Some(backing) = unpacked(path, image.bytes)? {
        return Ok(backing);
    }
    if path.starts_with("/dev/") {
        bail!(
            "this machine has no device {path}, which firn.store= names: name another one, or add its driver with firn build \
             --available-module{}",
            left_out::hint()
        );
    }
    let found = ramdisk.as_ref().map(|ramdisk| ramdisk.find(image, archive, true)).transpose()?.flatten();
    found.with_context(|| missing(image, is_marked(path), ramdisk.map(|ramdisk| ramdisk.bytes)))
}

/// Whether the ramdisk has the mark of an image, so that the kernel does not unpack it.
fn is_marked(path: &str) -> bool {
    mark(Path::new(path)).exists()
}

/// Removes the unpacked file of an image that is in memory a second time: with `retain_initrd`, but without the mark of the image.
fn free_double(path: &str) {
    if fs::symlink_metadata(path).is_ok_and(|found| found.is_file()) && fs::remove_file(path).is_ok() {
        log::warn!(
            "The store image {path} was in memory twice, since {RETAIN} is on the kernel command line: load {ZERO_COPY} of the build before \
             the ramdisk, or remove the word; then the machine boots with less memory"
        );
    }
}

/// The image as a file of the initramfs or as a block device. `None` if the path does not exist, or if the image has a mark.
///
/// If the ramdisk is cut short or does not fit into the memory, the kernel only logs a line and goes on. Then the file is missing, or it
/// has its full length from the start (`do_name`, init/initramfs.c) and a hole instead of data.
fn unpacked(path: &str, bytes: Option<u64>) -> Result<Option<Backing>> {
    let metadata = match fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        other => other.with_context(|| format!("reading the status of the store image {path}"))?,
    };
    if metadata.is_dir() && is_marked(path) {
        return Ok(None);
    }
    let is_device = metadata.file_type().is_block_device();
    // Before it is opened: a FIFO would block.
    ensure!(
        is_device || metadata.is_file(),
        "the store image {path} is neither a regular file nor a block device; name another path with firn.store= on the kernel \
         command line"
    );
    if is_device {
        let read = || read_ends(path).with_context(|| format!("reading the store image {path}"));
        child::run(&format!("reading the store image {path}"), Instant::now() + ANSWER, &read)?;
    }
    let file = File::open(path).with_context(|| format!("opening the store image {path}"))?;
    if is_device {
        return Ok(Some(Backing::Device { file, path: path.into() }));
    }
    check_size(path, &metadata, bytes)?;
    Ok(Some(Backing::File { file, path: path.into() }))
}

/// Reads some of the start and of the end of a device, to see whether it answers.
fn read_ends(path: &str) -> io::Result<()> {
    let mut device = File::open(path)?;
    for end in [SeekFrom::Start(0), SeekFrom::End(-(1 << 16))] {
        // A smaller device has no such place.
        if device.seek(end).is_ok() {
            io::copy(&mut device.by_ref().take(1 << 16), &mut io::sink())?;
        }
    }
    Ok(())
}

/// Checks the size of an unpacked image. A hole in the file has no blocks (of 512 bytes, `man 2 stat`).
fn check_size(path: &str, metadata: &Metadata, expected: Option<u64>) -> Result<()> {
    let expected = expected.unwrap_or(metadata.len());
    let arrived = metadata.len().min(metadata.st_blocks() * 512);
    if arrived < expected {
        bail!(
            "the store image {path} is incomplete, {arrived} of {expected} bytes are there: {}",
            incomplete(expected)
        );
    }
    if metadata.len() != expected {
        bail!("the store image {path} has {} bytes, but {}", metadata.len(), of_another_build(expected));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hole_is_a_part_that_is_missing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("image").to_str().unwrap().to_owned();
        let found = |bytes| {
            let image = ExpectedImage { bytes, ..ExpectedImage::at(&path) };
            locate(&image, None).map(drop).map_err(|error| error.to_string())
        };
        assert!(found(None).unwrap_err().contains("store image"));
        fs::write(&path, vec![7; 1 << 20]).unwrap();
        assert_eq!(found(None), Ok(()));
        assert_eq!(found(Some(1 << 20)), Ok(()));
        assert!(found(Some(1 << 19)).unwrap_err().contains("from different builds"));
        assert!(found(Some(1 << 21)).unwrap_err().contains("1048576 of 2097152 bytes are there"));
        // The full length from the start; the end of the data is missing, then all of it.
        File::options().write(true).open(&path).unwrap().set_len(1 << 21).unwrap();
        assert!(found(Some(1 << 21)).unwrap_err().contains("1048576 of 2097152 bytes are there"));
        File::create(&path).unwrap().set_len(1 << 20).unwrap();
        assert!(found(None).unwrap_err().contains("0 of 1048576 bytes are there"));
        assert!(unpacked(directory.path().to_str().unwrap(), None).is_err());
    }
}
