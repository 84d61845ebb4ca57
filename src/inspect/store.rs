//! The store paths in a store image, from the registration at its root.

use crate::contract::plan::REGISTRATION;
use crate::formats::registration;
use crate::formats::store_image::StoreSuperblock;
use crate::inspect::names::check_store_path;
use anyhow::{Context, Result, ensure};
use serde::Serialize;
use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;

/// A store image in a file, or in a ramdisk.
#[derive(Debug, Clone, Serialize)]
pub struct StoreImage {
    /// Its path; if it is in a ramdisk, the path there.
    pub path: String,
    /// Its offset in the file, bytes; none in a compressed segment.
    pub offset: Option<u64>,
    /// Its size, bytes.
    pub bytes: u64,
    /// Its superblock.
    #[serde(flatten)]
    pub superblock: StoreSuperblock,
    /// The store paths in its registration, sorted. Of several images that are stacked, one has the store paths of all.
    pub store_paths: Vec<StorePath>,
    /// The reason why the store paths are not known.
    pub unknown: Option<String>,
}

/// A store path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct StorePath {
    /// The path.
    pub path: String,
    /// Its size as a NAR, bytes.
    pub bytes: u64,
}

impl StoreImage {
    /// Reads the registration with the tool that belongs to the format. If that fails, the image gets the reason.
    #[must_use]
    pub fn with_paths(mut self, file: &Path) -> Self {
        match registration_of(file, self.offset, self.superblock.format).and_then(|text| paths(&text)) {
            Ok(paths) => self.store_paths = paths,
            Err(error) => self.unknown = Some(format!("{error:#}")),
        }
        self
    }

    /// The size of all of its store paths, bytes, as NARs.
    #[must_use]
    pub fn unpacked(&self) -> u64 {
        self.store_paths.iter().map(|path| path.bytes).sum()
    }
}

/// Removes the reason from images without a registration if another one has it: of several images that are stacked, one has the
/// registration of all.
pub fn stacked(images: &mut [StoreImage]) {
    if images.iter().any(|image| image.unknown.is_none()) {
        for image in images {
            image.unknown = None;
        }
    }
}

/// The registration of an image that begins at `offset` of `file`.
fn registration_of(file: &Path, offset: Option<u64>, format: &str) -> Result<String> {
    let offset = offset
        .context("the image is in a compressed segment; take it out with firn cat and inspect that file")?
        .to_string();
    let (mut command, package) = if format == "squashfs" {
        let mut unsquashfs = Command::new("unsquashfs");
        unsquashfs.args(["-offset", &offset, "-cat"]).arg(file).arg(REGISTRATION);
        (unsquashfs, "squashfs-tools 4.5 or newer")
    } else {
        let mut dump = Command::new("dump.erofs");
        dump.args(["--cat", &format!("--offset={offset}"), &format!("--path=/{REGISTRATION}")]).arg(file);
        (dump, "erofs-utils 1.8.5 or newer")
    };
    let tool = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| match error.kind() {
        ErrorKind::NotFound => anyhow::Error::new(error)
            .context(format!("there is no {tool} on the PATH, and firn needs it to read the image; install {package}")),
        _ => anyhow::Error::new(error).context(format!("running {tool}")),
    })?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success() && !output.stdout.is_empty(),
        "{tool} (of {package}) finds no {REGISTRATION} in the image: {}",
        errors.lines().next().unwrap_or("it is empty")
    );
    String::from_utf8(output.stdout).context("the registration is no UTF-8")
}

/// The paths of a registration and their sizes, sorted.
fn paths(text: &str) -> Result<Vec<StorePath>> {
    let registered = registration::parse(text)?;
    registered.iter().try_for_each(|path| check_store_path(&path.path))?;
    let mut paths: Vec<_> =
        registered.into_iter().map(|path| StorePath { path: path.path, bytes: path.nar_size }).collect();
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REGISTERED: &str =
        "/nix/store/b\nsha256:1\n120\n\n2\n/nix/store/b\n/nix/store/a\n/nix/store/a\nsha256:2\n80\n\n0\n";

    #[test]
    fn registrations() {
        let path = |path: &str, bytes| StorePath { path: path.into(), bytes };
        assert_eq!(paths(REGISTERED).unwrap(), [path("/nix/store/a", 80), path("/nix/store/b", 120)]);
        let error = paths(&REGISTERED.replace("/nix/store/b", "/nix/store/\x1b[2J")).unwrap_err().to_string();
        assert!(error.contains(r#"the registration names "/nix/store/\u{1b}[2J""#), "{error}");
    }
}
