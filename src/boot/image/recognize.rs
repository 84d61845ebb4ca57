//! Recognizes the file system of a store image.

use crate::boot::kernel::loop_device::Backing;
use crate::formats::magic;
use anyhow::{Context, Result};
use std::io::Read;

/// The file system of an image, by its magic number: `squashfs` or `erofs`. A file of unknown type counts as squashfs, and the kernel
/// refuses the mount.
///
/// # Errors
///
/// An image that cannot be read, or a file of another known type; the error names the type, which the kernel would not do.
pub fn recognize(path: &str, backing: &Backing) -> Result<&'static str> {
    let mut start = Vec::new();
    let read = backing.read().and_then(|image| image.take(magic::LENGTH).read_to_end(&mut start));
    read.with_context(|| format!("reading {path}"))?;
    match magic::recognize(&start) {
        None => Ok("squashfs"),
        Some(kind) => kind.store_image().with_context(|| {
            format!(
                "the store image {path} is {kind}, but firn-init mounts only squashfs and erofs; build the image with firn"
            )
        }),
    }
}
