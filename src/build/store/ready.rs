//! Store images from an earlier run, such as those of `firn image`.

use crate::build::output::checked::{KnownFile, describe};
use crate::build::output::directory::Directory;
use crate::build::store::divide::numbered;
use crate::build::store::packing::Format;
use crate::contract::manifest::FileEntry;
use crate::contract::plan::MAX_IMAGES;
use crate::host::progress::Progress;
use anyhow::{Result, bail, ensure};
use std::path::PathBuf;

/// The format of these images, which all have the same one.
///
/// # Errors
///
/// No image, more of them than stage 1 stacks, a file that is no store image, and images of different formats.
pub fn format(images: &[PathBuf]) -> Result<Format> {
    let Some(first) = images.first() else {
        bail!("no store image is given; name the output of firn image with --image")
    };
    let format = Format::of(first)?;
    for image in images {
        ensure!(
            Format::of(image)? == format,
            "{} and {} have different formats; pack both with the same --format",
            first.display(),
            image.display()
        );
    }
    ensure!(
        images.len() <= MAX_IMAGES,
        "stage 1 stacks at most {MAX_IMAGES} store images; pack the store as fewer images"
    );
    Ok(format)
}

/// Describes these images, with the names that [`images::pack`](crate::build::store::images::pack) gives to images of a
/// build.
///
/// # Errors
///
/// An image that cannot be read.
pub fn described(images: &[PathBuf], format: Format, progress: Progress) -> Result<Vec<FileEntry>> {
    let names = (0..images.len()).map(|number| numbered(format.file_name(), number));
    names.zip(images).map(|(name, image)| Ok(FileEntry { name, ..describe(image, progress)? })).collect()
}

/// Links these images into an output directory, and describes them.
///
/// # Errors
///
/// Those of reading and writing.
pub fn link(images: &[PathBuf], format: Format, output: &mut Directory, progress: Progress) -> Result<Vec<FileEntry>> {
    let entries = described(images, format, progress)?;
    for (entry, image) in entries.iter().zip(images) {
        output.link(&entry.name, &KnownFile::of_this_run(image.clone(), entry.bytes, &entry.sha256), progress)?;
    }
    Ok(entries)
}
