//! Whether a store image is the one of the plan.

use crate::boot::image::expected::Image;
use crate::boot::kernel::loop_device::Backing;
use crate::formats::digest::sha256;
use anyhow::{Context, Result, ensure};

/// Compares an image with its checksum: that finds damage by memory, disk or network.
///
/// # Errors
///
/// An image that cannot be read, or with another SHA-256 than the plan's.
pub fn verify(image: &Image, backing: &Backing) -> Result<()> {
    let place = &image.place;
    let Some(expected) = &image.sha256 else {
        log::warn!("The store image {place} is not verified: no plan has its SHA-256");
        return Ok(());
    };
    log::info!("Verifying {place}");
    let (_, found) = backing.read().and_then(sha256).with_context(|| format!("reading {place}"))?;
    ensure!(
        found == *expected,
        "the store image {place} is damaged: its SHA-256 is {found} and the plan's is {expected}; load the ramdisk again, and \
         test the machine's memory if that does not help"
    );
    Ok(())
}
