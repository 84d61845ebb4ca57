//! Finds the store images: locates, verifies and recognizes each of them.

use crate::boot::image::expected::ExpectedImage;
use crate::boot::image::{locate::locate, recognize::recognize, verify::verify};
use crate::boot::kernel::loop_device::Backing;
use crate::contract::place::{Place, archive_bytes};
use anyhow::{Result, ensure};

/// A store image that is ready to be mounted.
pub struct Found {
    /// Its place in the ramdisk.
    pub place: Place,
    /// The file, part of a file, or device with its bytes.
    pub backing: Backing,
    /// The type of its file system, `squashfs` or `erofs`.
    pub file_system: &'static str,
    /// The expected image that it was found for.
    image: ExpectedImage,
    /// Whether its SHA-256 was compared with the plan.
    verified: bool,
}

/// Finds all images and checks that they are complete; with `verified`, also that their SHA-256 is the one in the plan. `found` holds
/// the images of an earlier attempt, which are not located or hashed again, and afterwards all images that were found.
///
/// # Errors
///
/// An image that is missing, incomplete, damaged, or from another build than the plan.
pub fn find<'f>(images: &[ExpectedImage], verified: bool, found: &'f mut Vec<Found>) -> Result<&'f [Found]> {
    ensure!(!images.is_empty(), "the plan names no store image; build the ramdisk again");
    let sizes: Option<Vec<_>> = images.iter().map(|image| Some((&image.place, image.bytes?))).collect();
    let archive = sizes.map(archive_bytes);
    let mut before = std::mem::take(found);
    for image in images {
        let known = before.iter().position(|known| known.image == *image && known.verified >= verified);
        let one = match known {
            Some(known) => Ok(before.swap_remove(known)),
            None => find_one(image, archive, verified),
        };
        match one {
            Ok(one) => found.push(one),
            Err(error) => {
                found.append(&mut before);
                return Err(error);
            }
        }
    }
    Ok(found)
}

fn find_one(image: &ExpectedImage, archive: Option<u64>, verified: bool) -> Result<Found> {
    let backing = locate(image, archive)?;
    if verified {
        verify(image, &backing)?;
    }
    let file_system = recognize(&image.place, &backing)?;
    Ok(Found { place: image.place.clone(), backing, file_system, image: image.clone(), verified })
}
