//! The store image before it is mounted: whole, and what it should be.

use super::memory;
use super::plan::Image;
use crate::digest::sha256;
use anyhow::{Context, Result, bail, ensure};
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::os::linux::fs::MetadataExt;

/// Makes sure that the image arrived whole, and with `verify` that it is the one of the plan; and returns its file system,
/// squashfs or erofs.
///
/// A ramdisk that is cut short or does not fit into the memory is only a line in the kernel log; the boot goes on with a
/// file that is missing, or that has its full length from the start (`do_name`, init/initramfs.c) and a hole where its data
/// ought to be. A hole has no blocks.
///
/// # Errors
///
/// No image, one that is not whole, or another one than the plan's.
pub fn check(image: &Image, verify: bool) -> Result<&'static str> {
    let path = &image.path;
    let metadata = match fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let advice = match image.bytes {
                Some(bytes) => not_whole(bytes),
                None => "put it there, or name another path with firn.store=".into(),
            };
            return Err(error).with_context(|| format!("there is no store image {path} in the ramdisk: {advice}"));
        }
        other => other.with_context(|| format!("looking at the store image {path}"))?,
    };
    ensure!(metadata.is_file(), "the store image {path} is no regular file; name another path with firn.store=");
    let expected = image.bytes.unwrap_or(metadata.len());
    let arrived = metadata.len().min(metadata.st_blocks() * 512);
    if arrived < expected {
        bail!("the store image {path} is not whole, {arrived} of {expected} bytes are there: {}", not_whole(expected));
    }
    if metadata.len() != expected {
        bail!(
            "the store image {path} has {} bytes and the plan is for one of {expected}: they are of different builds; take \
             both from the same",
            metadata.len()
        );
    }
    if verify {
        check_sum(image)?;
    }
    file_system(path)
}

fn not_whole(bytes: u64) -> String {
    format!(
        "the boot loader handed over a part of the ramdisk, or the kernel had no room to unpack all of it (\"Initramfs \
         unpacking failed\" in its log): check the initrd that the machine loads, or give it more memory; {}",
        memory::sentence(Some(bytes))
    )
}

/// Compares the image with its checksum: that finds what memory, disk or network did to it on its way.
fn check_sum(image: &Image) -> Result<()> {
    let Some(expected) = &image.sha256 else {
        log::warn!("The store image is not verified: no plan says what its SHA-256 is");
        return Ok(());
    };
    log::info!("Verifying {}", image.path);
    let (_, found) = File::open(&image.path).and_then(sha256).with_context(|| format!("reading {}", image.path))?;
    ensure!(
        found == *expected,
        "the store image {} is damaged: its SHA-256 is {found} and that of the plan {expected}; load the initrd again, and \
         test the machine's memory if that does not help",
        image.path
    );
    Ok(())
}

/// The file system of an image, by its magic number. One that is none of firn's is named: the kernel would only say what it
/// is not. Of what nobody knows the kernel shall say so.
fn file_system(path: &str) -> Result<&'static str> {
    let mut start = Vec::new();
    let read = File::open(path).and_then(|file| file.take(2048).read_to_end(&mut start));
    read.with_context(|| format!("reading {path}"))?;
    match recognize(&start) {
        None | Some("a squashfs") => Ok("squashfs"),
        Some("an erofs") => Ok("erofs"),
        Some(kind) => {
            bail!(
                "the store image {path} is {kind}, and firn-init mounts squashfs and erofs; build the image with firn"
            )
        }
    }
}

/// What begins like this: magic numbers at their offsets (`man 5 magic`).
fn recognize(start: &[u8]) -> Option<&'static str> {
    const TYPES: [(usize, &[u8], &str); 9] = [
        (0, b"hsqs", "a squashfs"),
        (0x400, b"\xe2\xe1\xf5\xe0", "an erofs"),
        (0x438, b"\x53\xef", "an ext2, ext3 or ext4"),
        (0, b"XFSB", "an xfs"),
        (0, b"070701", "a cpio archive"),
        (0, b"\x28\xb5\x2f\xfd", "compressed (zstd)"),
        (0, b"\xfd7zXZ\0", "compressed (xz)"),
        (0, b"\x1f\x8b", "compressed (gzip)"),
        (0, b"\x7fELF", "a program"),
    ];
    let begins = |(offset, magic): (usize, &[u8])| start.get(offset..).is_some_and(|rest| rest.starts_with(magic));
    TYPES.iter().find(|(offset, magic, _)| begins((*offset, magic))).map(|(_, _, kind)| *kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types() {
        let mut erofs = vec![0; 2048];
        erofs[0x400..0x404].copy_from_slice(&0xe0f5_e1e2_u32.to_le_bytes());
        for (start, expected) in [
            (&erofs[..], Some("an erofs")),
            (b"hsqs and so on", Some("a squashfs")),
            (b"", None),
            (b"\x28\xb5\x2f\xfd", Some("compressed (zstd)")),
        ] {
            assert_eq!(recognize(start), expected);
        }
    }
}
