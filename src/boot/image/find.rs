//! The store images before they are mounted: whole, and what they should be.

use crate::boot::image::retained;
use crate::boot::kernel::loop_device::Source;
use crate::boot::kernel::memory;
use crate::boot::plan::Image;
use crate::contract::plan::{MAX_UNPACKED, RETAINED};
use crate::formats::digest::sha256;
use crate::formats::magic;
use anyhow::{Context, Result, bail, ensure};
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::os::linux::fs::MetadataExt;
use std::path::Path;

/// A store image that can be mounted.
pub struct Found {
    /// Its path in the ramdisk.
    pub path: String,
    /// What it is in.
    pub source: Source,
    /// Its file system, squashfs or erofs.
    pub file_system: &'static str,
}

/// Makes sure that every image arrived whole, and with `verify` that it is the one of the plan.
///
/// # Errors
///
/// No image, one that is not whole, or another one than the plan's.
pub fn find(images: &[Image], verify: bool) -> Result<Vec<Found>> {
    ensure!(!images.is_empty(), "the plan names no store image; build the ramdisk again");
    let archive = retained::archive(images);
    images.iter().map(|image| find_one(image, archive, verify)).collect()
}

fn find_one(image: &Image, archive: Option<u64>, verify: bool) -> Result<Found> {
    let source = match unpacked(image)? {
        Some(source) => source,
        None => retained::find(image, archive)?,
    };
    if verify {
        check_sum(image, &source)?;
    }
    let file_system = file_system(&image.path, &source)?;
    Ok(Found { path: image.path.clone(), source, file_system })
}

/// The image as a file of the initramfs, if the kernel unpacked it there. One that it was not to unpack may still be at the
/// root, where boot loaders put images that are files of their own.
///
/// A ramdisk that is cut short or does not fit into the memory is only a line in the kernel log; the boot goes on with a
/// file that is missing, or that has its full length from the start (`do_name`, init/initramfs.c) and a hole where its data
/// ought to be. A hole has no blocks.
fn unpacked(image: &Image) -> Result<Option<Source>> {
    let at_the_root = Path::new(&image.path).strip_prefix(RETAINED).ok().map(|name| Path::new("/").join(name));
    let places = [Some(Path::new(&image.path)), at_the_root.as_deref()];
    for path in places.into_iter().flatten() {
        let path = path.to_string_lossy();
        let file = match File::open(&*path) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            other => other.with_context(|| format!("opening the store image {path}"))?,
        };
        let metadata = file.metadata().with_context(|| format!("looking at the store image {path}"))?;
        ensure!(metadata.is_file(), "the store image {path} is no regular file; name another path with firn.store=");
        check_size(&path, &metadata, image.bytes)?;
        return Ok(Some(Source { file, path: path.into_owned(), part: None }));
    }
    Ok(None)
}

fn check_size(path: &str, metadata: &fs::Metadata, expected: Option<u64>) -> Result<()> {
    let expected = expected.unwrap_or(metadata.len());
    let arrived = metadata.len().min(metadata.st_blocks() * 512);
    if arrived < expected {
        bail!("the store image {path} is not whole, {arrived} of {expected} bytes are there: {}", not_whole(expected));
    }
    if metadata.len() != expected {
        bail!("the store image {path} has {} bytes and {}", metadata.len(), of_another_build(expected));
    }
    Ok(())
}

/// What may have happened to an image that is not there, or not all of it.
pub fn not_whole(bytes: u64) -> String {
    let large = if bytes > MAX_UNPACKED { ", or unpacks at most 2 GiB of one file" } else { "" };
    format!(
        "the boot loader handed over a part of the ramdisk, or the kernel had no room to unpack all of it{large} (\"Initramfs \
         unpacking failed\" in its log): check the initrd that the machine loads, or give it more memory; {}",
        memory::sentence(Some(memory::needed(bytes, false)))
    )
}

/// The end of a sentence about an image that does not have its size.
pub fn of_another_build(expected: u64) -> String {
    format!("the plan is for one of {expected}: they are of different builds; take both from the same")
}

/// Compares the image with its checksum: that finds what memory, disk or network did to it on its way.
fn check_sum(image: &Image, source: &Source) -> Result<()> {
    let Some(expected) = &image.sha256 else {
        log::warn!("The store image is not verified: no plan says what its SHA-256 is");
        return Ok(());
    };
    log::info!("Verifying {}", image.path);
    let (_, found) = source.read().and_then(sha256).with_context(|| format!("reading {}", image.path))?;
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
fn file_system(path: &str, source: &Source) -> Result<&'static str> {
    let mut start = Vec::new();
    let read = source.read().and_then(|image| image.take(magic::LENGTH).read_to_end(&mut start));
    read.with_context(|| format!("reading {path}"))?;
    match magic::recognize(&start) {
        None => Ok("squashfs"),
        Some(kind) => kind.store_image().with_context(|| {
            format!(
                "the store image {path} is {kind}, and firn-init mounts squashfs and erofs; build the image with firn"
            )
        }),
    }
}
