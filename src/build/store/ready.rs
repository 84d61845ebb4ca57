//! Store images from an earlier run, such as those of `firn image`. Their file systems are read with the tools that belong to them: an
//! image has to have each store path of the system. The contents of the store paths are not compared.

use crate::build::output::checked::{KnownFile, describe};
use crate::build::output::directory::Directory;
use crate::build::store::divide::numbered;
use crate::build::store::packing::Format;
use crate::contract::manifest::FileEntry;
use crate::contract::plan::{MAX_IMAGES, REGISTRATION};
use crate::formats::registration::Registered;
use crate::host::progress::Progress;
use crate::host::tool;
use anyhow::{Context, Result, bail, ensure};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

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

/// Makes sure that these images together have each of these store paths.
///
/// # Errors
///
/// A store path that no image has; the same image twice; a file system whose root directory cannot be read.
pub fn check(images: &[PathBuf], format: Format, closure: &[Registered], progress: Progress) -> Result<()> {
    let mut names: HashMap<String, &PathBuf> = HashMap::new();
    for image in images {
        for name in root_directory(image, format)? {
            if let Some(other) = names.insert(name.clone(), image)
                && name != REGISTRATION
            {
                bail!(
                    "{name} is in {} and in {}, and each store path is in one image: they are both images of one store, or the same file; \
                     give each image once",
                    other.display(),
                    image.display()
                );
            }
        }
    }
    let given = || images.iter().map(|image| image.display().to_string()).collect::<Vec<_>>().join(" or ");
    if let Some(missing) = closure.iter().find(|path| !names.contains_key(name_of(path))) {
        bail!(
            "{} is not in {}: give all images of this system, and the --without-kernel, --exclude and --store-content with which they \
             were packed; or pack the image again with firn image",
            missing.path,
            given()
        );
    }
    names.retain(|name, _| name != REGISTRATION);
    for path in closure {
        names.remove(name_of(path));
    }
    if let Some(name) = names.keys().min() {
        progress.say(&format!(
            "Warning: {} has {} store paths that are not selected, such as {name}: Nix does not know them in the booted system",
            given(),
            names.len()
        ));
    }
    Ok(())
}

fn name_of(path: &Registered) -> &str {
    path.path.rsplit('/').next().unwrap_or(&path.path)
}

/// The names in the root directory of an image.
fn root_directory(image: &Path, format: Format) -> Result<Vec<String>> {
    let (mut command, advice) = match format {
        Format::Squashfs => {
            let mut command = Command::new("unsquashfs");
            command.args(["-max-depth", "1", "-dest", "", "-ls"]).arg(image);
            (command, "install squashfs-tools (4.5 or newer)")
        }
        Format::Erofs => {
            let mut command = Command::new("dump.erofs");
            command.args(["--ls", "--path=/"]).arg(image);
            (command, "install erofs-utils (1.5 or newer)")
        }
    };
    let mut names = Vec::new();
    let line = |line: &str| names.extend(listed(format, line).map(str::to_owned));
    tool::run(&mut command, advice, line, |_| {})
        .with_context(|| format!("reading the store image {}; give an output of firn image", image.display()))?;
    Ok(names)
}

/// The name in a line of the list that the tool prints.
fn listed(format: Format, line: &str) -> Option<&str> {
    match format {
        Format::Squashfs => line.strip_prefix('/').filter(|name| !name.is_empty()),
        // The number of the inode, the type and the name.
        Format::Erofs => match line.split_whitespace().collect::<Vec<_>>().as_slice() {
            [inode, kind, name] if [inode, kind].iter().all(|number| number.parse::<u64>().is_ok()) => {
                Some(*name).filter(|name| ![".", ".."].contains(name))
            }
            _ => None,
        },
    }
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
