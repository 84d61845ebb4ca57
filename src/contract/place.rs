//! The place of a store image, and the part of the ramdisk that the kernel does not unpack.

use crate::formats::newc::{HEADER, PAGE, TRAILER};
use serde::{Deserialize, Serialize};
use std::fmt;
#[cfg(feature = "builder")]
use std::path::{Component, Path};

/// The place of a store image, where stage 1 looks for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// A file of the initramfs, unpacked by the kernel: its absolute path. It may be a symlink.
    Unpacked(String),
    /// A member of the ramdisk that the kernel does not unpack: its name below [`RETAINED`]. It stays where the boot loader puts it.
    Retained(String),
}

/// The directory of the ramdisk for retained store images. No ramdisk has an entry for the directory itself, so the kernel skips the
/// files in it (`do_name`, init/initramfs.c). Stage 1 mounts them from the memory where the boot loader puts the ramdisk.
pub const RETAINED: &str = "/firn-retained";

/// The directories of the ramdisk in which the kernel searches before it unpacks the ramdisk: the microcode of processors
/// (`arch/x86/kernel/cpu/microcode` of Linux 6.12), and tables of the firmware (`drivers/acpi/tables.c`). It searches only archives
/// at the front that are not compressed, and these have mostly no member for the directory.
#[cfg(feature = "builder")]
pub const EARLY_DIRECTORIES: [&str; 2] = ["/kernel/x86/microcode", "/kernel/firmware/acpi"];

/// Whether a member of this name is read where it is in the ramdisk: by stage 1, or early by the kernel. It does not matter then whether
/// the kernel makes a file of it.
#[cfg(feature = "builder")]
#[must_use]
pub fn is_read_in_place(name: &Path) -> bool {
    let path = Path::new("/").join(name);
    let plain = path.components().all(|part| part != Component::ParentDir);
    plain && [RETAINED].iter().chain(&EARLY_DIRECTORIES).any(|directory| path.starts_with(directory))
}

/// The file that shows the ramdisk as the boot loader puts it into memory. The kernel makes it with
/// [`RETAIN`](super::parameters::RETAIN) on the command line (Linux 6.8, `do_populate_rootfs` in init/initramfs.c).
pub const INITRD: &str = "/sys/firmware/initrd";

impl Place {
    /// The place that belongs to an absolute path in the ramdisk, such as a value of `firn.store=`.
    #[must_use]
    pub fn of_path(path: &str) -> Self {
        match path.strip_prefix(RETAINED).and_then(|rest| rest.strip_prefix('/')) {
            Some(name) => Self::Retained(name.into()),
            None => Self::Unpacked(path.into()),
        }
    }

    /// The absolute path of the image's member in the ramdisk.
    #[must_use]
    pub fn path(&self) -> String {
        self.to_string()
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unpacked(path) => f.write_str(path),
            Self::Retained(name) => write!(f, "{RETAINED}/{name}"),
        }
    }
}

/// The size, bytes, of the archive that the builder makes of images with these places and sizes (bytes). It is the last part of the
/// ramdisk, and stage 1 looks there first. The contents of each image begin on a page; the header before them is padded to end there.
pub fn archive_bytes<'a>(images: impl IntoIterator<Item = (&'a Place, u64)>) -> u64 {
    let four = |position: u64| position.next_multiple_of(4);
    let position = images.into_iter().fold(0, |position, (place, bytes)| {
        // The path without its slash, and a NUL.
        let name = place.path().len() as u64;
        (position + HEADER as u64 + name).next_multiple_of(PAGE) + four(bytes)
    });
    position + four((HEADER + TRAILER.len() + 1) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "builder")]
    #[test]
    fn the_archive_that_is_built_has_the_size_that_stage_1_expects() {
        for sizes in [&[0][..], &[1], &[4096], &[4097, 5], &[10_000, 4095, 1]] {
            let places = (0..).map(|number| Place::Retained(format!("nix-store-{number}.squashfs")));
            let images: Vec<_> = places.zip(sizes.iter().copied()).collect();
            let mut bytes = Vec::new();
            let mut archive = crate::formats::cpio::Archive::new(&mut bytes);
            for (place, size) in &images {
                archive.file(&place.path(), 0o444, Some(PAGE), *size, std::io::repeat(7)).unwrap();
            }
            archive.finish().unwrap();
            let computed = archive_bytes(images.iter().map(|(place, size)| (place, *size)));
            assert_eq!(computed, bytes.len() as u64, "{sizes:?}");
        }
    }

    #[test]
    fn places_by_path() {
        for (path, place) in [
            ("/nix-store.squashfs", Place::Unpacked("/nix-store.squashfs".into())),
            ("/firn-retained/a.erofs", Place::Retained("a.erofs".into())),
            ("/firn-retained-not/a", Place::Unpacked("/firn-retained-not/a".into())),
        ] {
            assert_eq!(Place::of_path(path), place);
            assert_eq!(place.path(), path);
        }
    }
}
