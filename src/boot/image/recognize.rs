//! The file system of a store image.

use crate::boot::kernel::loop_device::Backing;
use crate::contract::place::Place;
use crate::formats::magic;
use anyhow::{Context, Result};
use std::io::Read;

/// The file system of an image, by its magic number. Another known type of file is an error with its name: the kernel would only
/// say what it is not. A file of no known type is left to the kernel, as a squashfs.
///
/// # Errors
///
/// An image that cannot be read, or a file of another type.
pub fn recognize(place: &Place, backing: &Backing) -> Result<&'static str> {
    let mut start = Vec::new();
    let read = backing.read().and_then(|image| image.take(magic::LENGTH).read_to_end(&mut start));
    read.with_context(|| format!("reading {place}"))?;
    match magic::recognize(&start) {
        None => Ok("squashfs"),
        Some(kind) => kind.store_image().with_context(|| {
            format!(
                "the store image {place} is {kind}, and firn-init mounts squashfs and erofs; build the image with firn"
            )
        }),
    }
}
