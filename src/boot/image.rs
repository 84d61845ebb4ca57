//! The store image before it is mounted: whole, and what it should be.

use super::memory;
use super::plan::Image;
use crate::digest::sha256;
use crate::magic;
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
    let read = File::open(path).and_then(|file| file.take(magic::LENGTH).read_to_end(&mut start));
    read.with_context(|| format!("reading {path}"))?;
    match magic::recognize(&start) {
        None => Ok("squashfs"),
        Some(magic::File::Image(file_system)) => Ok(file_system),
        Some(magic::File::Other(kind)) => {
            bail!(
                "the store image {path} is {kind}, and firn-init mounts squashfs and erofs; build the image with firn"
            )
        }
    }
}
