//! The places of store images: files that the kernel unpacks, or parts of the ramdisk that stay where the boot loader puts them (zero
//! copy); and other parts of the ramdisk that are read there.

use crate::formats::newc::{HEADER, PAGE, TRAILER};
use std::path::{Path, PathBuf};

/// The directories of the ramdisk in which the kernel searches before it unpacks the ramdisk: the microcode of processors
/// (`arch/x86/kernel/cpu/microcode` of Linux 6.12), and tables of the firmware (`drivers/acpi/tables.c`). It searches only archives
/// at the front that are not compressed, and these have mostly no member for the directory.
#[cfg(feature = "builder")]
pub const EARLY_DIRECTORIES: [&str; 2] = ["/kernel/x86/microcode", "/kernel/firmware/acpi"];

/// Whether the kernel reads a member of this name early, where it is in the ramdisk. It does not matter then whether it makes a file of it.
#[cfg(feature = "builder")]
#[must_use]
pub fn is_read_early(name: &Path) -> bool {
    let path = Path::new("/").join(name);
    let plain = path.components().all(|part| part != std::path::Component::ParentDir);
    plain && EARLY_DIRECTORIES.iter().any(|directory| path.starts_with(directory))
}

/// The file that shows the ramdisk as the boot loader puts it into memory. The kernel makes it with
/// [`RETAIN`](super::parameters::RETAIN) on the command line (Linux 6.8, `do_populate_rootfs` in init/initramfs.c).
pub const INITRD: &str = "/sys/firmware/initrd";

/// The name of the small ramdisk in a build that makes the kernel leave the store images where they are. A boot loader loads it before
/// the ramdisk, with [`RETAIN`](super::parameters::RETAIN) on the command line. It has the [`mark`] of each image.
pub const ZERO_COPY: &str = "zero-copy.cpio";

/// The file that marks a store image: it makes a directory of the image's path. The kernel does not remove a directory with files, and so
/// makes no file of the image (`clean_path` and `do_name`, init/initramfs.c).
#[must_use]
pub fn mark(image: &Path) -> PathBuf {
    image.join("zero-copy")
}

/// The image that a file marks, if it is a [`mark`].
#[must_use]
pub fn marked(path: &Path) -> Option<&Path> {
    path.parent().filter(|image| mark(image) == path)
}

/// The size, bytes, of the archive that the builder makes of images with these paths and sizes (bytes). It is the last part of the
/// ramdisk, and stage 1 looks there first. The contents of each image begin on a page; the header before them is padded to end there.
pub fn archive_bytes<'a>(images: impl IntoIterator<Item = (&'a str, u64)>) -> u64 {
    let four = |position: u64| position.next_multiple_of(4);
    let position = images.into_iter().fold(0, |position, (path, bytes)| {
        // The path without its slash, and a NUL.
        let name = path.len() as u64;
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
            let paths: Vec<_> = (0..sizes.len()).map(|number| format!("/nix-store-{number}.squashfs")).collect();
            let images = || paths.iter().map(String::as_str).zip(sizes.iter().copied());
            let mut bytes = Vec::new();
            let mut archive = crate::formats::cpio::Archive::new(&mut bytes);
            for (path, size) in images() {
                archive.file(path, 0o444, Some(PAGE), size, std::io::repeat(7)).unwrap();
            }
            archive.finish().unwrap();
            assert_eq!(archive_bytes(images()), bytes.len() as u64, "{sizes:?}");
        }
    }

    #[test]
    fn images_and_their_marks() {
        assert_eq!(marked(&mark(Path::new("/a.erofs"))), Some(Path::new("/a.erofs")));
        for path in ["/", "/a.erofs", "/a/zero-copy.cpio", "/a/zero-copy/b"] {
            assert_eq!(marked(Path::new(path)), None);
        }
    }
}
