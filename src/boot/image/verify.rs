//! Compares a store image with the plan.

use crate::boot::image::expected::ExpectedImage;
use crate::boot::kernel::loop_device::Backing;
use crate::formats::digest::sha256;
use anyhow::{Context, Result, ensure};

/// Compares the SHA-256 of an image with the one in the plan or on the command line. This finds damage by memory, disk or network.
///
/// # Errors
///
/// An image that cannot be read, or with another SHA-256, or without one to compare it with: verification is demanded.
pub fn verify(image: &ExpectedImage, backing: &Backing) -> Result<()> {
    let path = &image.path;
    let expected = image.sha256.as_ref().with_context(|| {
        format!(
            "the store image {path} cannot be verified, which firn.verify=full or firn build --verify demands: its SHA-256 is not known; \
             add it to the kernel command line with firn.store.sha256=, beside firn.store="
        )
    })?;
    log::info!("Verifying the store image {path}");
    let (_, found) = backing.read().and_then(sha256).with_context(|| format!("reading {path}"))?;
    ensure!(
        found == *expected,
        "the store image {path} is damaged: its SHA-256 is {found}, but it should be {expected}; load the ramdisk again, and test \
         the memory of the machine if the error remains"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b_4_an_image_without_a_digest_is_not_taken_for_verified() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        let backing = || Backing::open(path).unwrap();
        let mut image = ExpectedImage::at(path);
        let error = verify(&image, &backing()).unwrap_err().to_string();
        assert!(error.contains("cannot be verified") && error.contains("firn.store.sha256="), "{error}");
        image.sha256 = Some(sha256(&b""[..]).unwrap().1);
        verify(&image, &backing()).unwrap();
        image.sha256 = Some("0".repeat(64));
        assert!(verify(&image, &backing()).unwrap_err().to_string().contains("is damaged"));
    }
}
