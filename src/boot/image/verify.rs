//! Compares a store image with the plan.

use crate::boot::image::expected::ExpectedImage;
use crate::boot::kernel::loop_device::Backing;
use crate::formats::digest::sha256;
use anyhow::{Context, Result, ensure};

/// Compares the SHA-256 of an image with the plan. This finds damage by memory, disk or network.
///
/// # Errors
///
/// An image that cannot be read, or with another SHA-256 than in the plan.
pub fn verify(image: &ExpectedImage, backing: &Backing) -> Result<()> {
    let place = &image.place;
    let Some(expected) = &image.sha256 else {
        log::warn!("The store image {place} is not verified: the plan has no SHA-256 for it");
        return Ok(());
    };
    log::info!("Verifying the store image {place}");
    let (_, found) = backing.read().and_then(sha256).with_context(|| format!("reading {place}"))?;
    ensure!(
        found == *expected,
        "the store image {place} is damaged: its SHA-256 is {found}, but the plan has {expected}; load the ramdisk again, and test \
         the memory of the machine if the error remains"
    );
    Ok(())
}
