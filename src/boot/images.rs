//! Finds the store images: locates, verifies and recognizes each of them.

use crate::boot::image::expected::ExpectedImage;
use crate::boot::image::{locate::locate, recognize::recognize, verify::verify};
use crate::boot::kernel::loop_device::Backing;
use crate::boot::mounted::Mounted;
use crate::contract::place::archive_bytes;
use anyhow::{Result, ensure};
use std::fs;
use std::os::unix::fs::MetadataExt;

/// A store image that is ready to be mounted.
pub struct Found {
    /// Its path in the ramdisk.
    pub path: String,
    /// The file, part of a file, or device with its bytes.
    pub backing: Backing,
    /// The type of its file system, `squashfs` or `erofs`.
    pub file_system: &'static str,
    /// The expected image that it was found for.
    image: ExpectedImage,
    /// Whether its SHA-256 was compared with the plan.
    verified: bool,
    stamp: Option<Stamp>,
}

/// The parts of a file's status by which a changed or replaced file is noticed.
type Stamp = (u64, u64, u64, i64, i64);

/// Finds all images and checks that they are complete; with `verified`, also that their SHA-256 is the one in the plan. `found` holds
/// the images of an earlier attempt, and afterwards all images that were found: those that did not change since are not located or
/// hashed again. If any changed, nothing that is `mounted` is of use.
///
/// # Errors
///
/// An image that is missing, incomplete, damaged, or from another build than the plan.
pub fn find<'f>(
    images: &[ExpectedImage],
    verified: bool,
    found: &'f mut Vec<Found>,
    mounted: &mut Mounted,
) -> Result<&'f [Found]> {
    ensure!(!images.is_empty(), "the plan names no store image; build the ramdisk again");
    let sizes: Option<Vec<_>> = images.iter().map(|image| Some((image.path.as_str(), image.bytes?))).collect();
    let archive = sizes.map(archive_bytes);
    let mut before = std::mem::take(found);
    before.retain(Found::is_unchanged);
    if !before.iter().map(|known| &known.image).eq(images) {
        *mounted = Mounted::Nothing;
    }
    for image in images {
        let known = before.iter().position(|known| known.image == *image && known.verified >= verified);
        let one = match known {
            Some(known) => Ok(before.remove(known)),
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
    let file_system = recognize(&image.path, &backing)?;
    let stamp = stamp(&backing);
    Ok(Found { path: image.path.clone(), backing, file_system, image: image.clone(), verified, stamp })
}

impl Found {
    /// Whether the file at the path is still the one that was found. One that is deleted is, since it is open.
    fn is_unchanged(&self) -> bool {
        stamp(&self.backing).is_none_or(|now| self.stamp == Some(now))
    }
}

/// Device, inode, size and time of modification of the file at the path of a backing. None of a part: the ramdisk is always the same.
fn stamp(backing: &Backing) -> Option<Stamp> {
    let (Backing::File { path, .. } | Backing::Device { path, .. }) = backing else { return None };
    let found = fs::metadata(path).ok()?;
    Some((found.dev(), found.ino(), found.size(), found.mtime(), found.mtime_nsec()))
}
