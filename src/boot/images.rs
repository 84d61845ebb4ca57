//! The store images before they are mounted: located, verified, recognized.

use crate::boot::image::expected::Image;
use crate::boot::image::{locate::locate, recognize::recognize, verify::verify};
use crate::boot::kernel::loop_device::Backing;
use crate::contract::place::{Place, archive_bytes};
use anyhow::{Result, ensure};

/// A store image that can be mounted.
pub struct Found {
    /// Its place in the ramdisk.
    pub place: Place,
    /// Its bytes.
    pub backing: Backing,
    /// Its file system, squashfs or erofs.
    pub file_system: &'static str,
    /// The image of the plan, and whether it was compared with its checksum.
    image: Image,
    verified: bool,
}

/// Finds every image whole, and with `verify` the very one of the plan. `found` are those of an earlier attempt, which are
/// not located or hashed again, and gets all of them.
///
/// # Errors
///
/// No image, one that is not whole, or another one than the plan's.
pub fn find<'f>(images: &[Image], verified: bool, found: &'f mut Vec<Found>) -> Result<&'f [Found]> {
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

fn find_one(image: &Image, archive: Option<u64>, verified: bool) -> Result<Found> {
    let backing = locate(image, archive)?;
    if verified {
        verify(image, &backing)?;
    }
    let file_system = recognize(&image.place, &backing)?;
    Ok(Found { place: image.place.clone(), backing, file_system, image: image.clone(), verified })
}
