//! The cache directory of layers. Each layer is a directory with the image and its description, and appears there by one rename. What
//! is in the cache is never trusted: an image is compared with its description before it is used, and packed again if it differs. So
//! nothing here waits until the data is on the disk.
//!
//! Several builds can use one cache.

use crate::build::output::checked::describe;
use crate::build::output::copies::clone_or_copy;
use crate::build::store::layer::{Identity, Layer, key, prefix};
use crate::contract::manifest::FileEntry;
use crate::host::directory_lock::DirectoryLock;
use crate::host::interrupt;
use crate::host::progress::Progress;
use crate::host::staging::{Claim, Staging};
use anyhow::{Context, Result, ensure};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::process::geteuid;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The names of the files of a layer.
const IMAGE: &str = "image";
const DESCRIPTION: &str = "description.json";

/// The most that is read of a description, bytes. One for 100,000 store paths has 20 MB.
const LONGEST: u64 = 256 << 20;

/// A cache that a build uses, and the recipe by which the build packs.
#[derive(Debug)]
pub struct OpenCache {
    directory: PathBuf,
    recipe: String,
    progress: Progress,
}

/// The state of a layer in the cache.
#[derive(Debug)]
pub enum Cached {
    /// The image is at the path that the build wants. Its size and SHA-256 were compared with the description; the name is empty.
    Whole(FileEntry),
    /// There is no such layer.
    Missing,
    /// The file that is damaged, and in which way. The layer has to be packed again.
    Damaged(PathBuf, String),
}

/// The description of a layer.
#[derive(Debug, Serialize, Deserialize)]
struct Description {
    /// Store paths and the hashes of their NARs.
    paths: Vec<Identity>,
    /// The size of the image, bytes.
    bytes: u64,
    /// The SHA-256 of the image, hexadecimal.
    sha256: String,
}

impl OpenCache {
    /// Opens a directory, and makes it if it is missing.
    ///
    /// # Errors
    ///
    /// A directory that cannot be made or read.
    pub fn open(directory: &Path, recipe: String, progress: Progress) -> Result<Self> {
        let context =
            || format!("opening the layer cache {}; give a directory of yours with --layer-cache", directory.display());
        fs::create_dir_all(directory).with_context(context)?;
        fs::read_dir(directory).with_context(context)?;
        let metadata = fs::metadata(directory).with_context(context)?;
        let (owner, mode) = (metadata.uid(), metadata.mode());
        if ![0, geteuid().as_raw()].contains(&owner) || mode & 0o002 != 0 {
            progress.say(&format!(
                "Other users can write to the layer cache {} (owner {owner}, mode {:o}): they decide what is in the images that \
                 firn takes from it",
                directory.display(),
                mode & 0o7777
            ));
        }
        Ok(Self { directory: directory.into(), recipe, progress })
    }

    /// The recipe by which the build packs.
    #[must_use]
    pub fn recipe(&self) -> &str {
        &self.recipe
    }

    /// The store paths of each layer of this recipe. A layer with a description that cannot be read, or that is not the one its name
    /// says, is left out.
    ///
    /// # Errors
    ///
    /// A directory that cannot be read.
    pub fn known(&self) -> Result<Vec<HashSet<Identity>>> {
        let context = || format!("reading the layer cache {}", self.directory.display());
        let mut known = Vec::new();
        for entry in fs::read_dir(&self.directory).with_context(context)? {
            let path = entry.with_context(context)?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if !name.starts_with(&prefix(&self.recipe)) {
                continue;
            }
            if let Ok(Some(description)) = read(&path)
                && !description.paths.is_empty()
                && key(&self.recipe, &description.paths) == name
            {
                known.push(description.paths.into_iter().collect());
            }
        }
        Ok(known)
    }

    /// Copies the image of a layer to `to`, and compares it with the description there: other programs may have changed the cache.
    ///
    /// # Errors
    ///
    /// Those of writing `to`.
    pub fn take(&self, layer: &Layer, to: &Path) -> Result<Cached> {
        let directory = self.directory.join(&layer.key);
        let description = match read(&directory) {
            Ok(None) => return Ok(Cached::Missing),
            Err(error) => return Ok(Cached::Damaged(directory.join(DESCRIPTION), format!("{error:#}"))),
            Ok(Some(description)) => description,
        };
        if description.paths != layer.identities() {
            return Ok(Cached::Damaged(directory.join(DESCRIPTION), "it describes other store paths".into()));
        }
        let image = directory.join(IMAGE);
        // The size first: it costs nothing. And a pipe would block.
        match fs::symlink_metadata(&image).map(|metadata| (metadata.is_file(), metadata.len())) {
            Err(error) => return Ok(Cached::Damaged(image, error.to_string())),
            Ok((false, _)) => return Ok(Cached::Damaged(image, "it is no regular file".into())),
            Ok((true, bytes)) if bytes != description.bytes => {
                let reason = format!("it has {bytes} bytes instead of {}", description.bytes);
                return Ok(Cached::Damaged(image, reason));
            }
            Ok((true, _)) => {}
        }
        if let Err(error) = File::open(&image) {
            return Ok(Cached::Damaged(image, error.to_string()));
        }
        if let Err(error) = clone_or_copy(&image, to) {
            // Somebody may delete it at any time.
            if image.exists() {
                return Err(error).with_context(|| format!("taking {} from the layer cache", image.display()));
            }
            return Ok(Cached::Missing);
        }
        let reason = match describe(to, self.progress) {
            Ok(entry) if entry.bytes == description.bytes && entry.sha256 == description.sha256 => {
                mark_as_used(&directory)?;
                return Ok(Cached::Whole(FileEntry { name: String::new(), ..entry }));
            }
            Ok(entry) => format!("its SHA-256 is {} instead of {}", entry.sha256, description.sha256),
            Err(error) => {
                interrupt::check()?;
                format!("{error:#}")
            }
        };
        fs::remove_file(to).with_context(|| format!("deleting {}", to.display()))?;
        Ok(Cached::Damaged(image, reason))
    }

    /// Keeps the image of a new layer, in place of a damaged one.
    ///
    /// # Errors
    ///
    /// Those of writing. The cache is as it was then.
    pub fn put(&self, layer: &Layer, image: &Path, entry: &FileEntry) -> Result<()> {
        let description = Description { paths: layer.identities(), bytes: entry.bytes, sha256: entry.sha256.clone() };
        let keep = || -> Result<()> {
            let staging = Staging::create(&DirectoryLock::take(&self.directory)?, Claim::Nothing)?;
            let new = staging.path().join("new");
            // The mode of the staging directory is for this user only.
            fs::create_dir(&new)?;
            clone_or_copy(image, &new.join(IMAGE))?;
            fs::write(new.join(DESCRIPTION), serde_json::to_vec(&description)?)?;
            publish(&new, &self.directory.join(&layer.key), &staging.path().join("old"), exchange)?;
            Ok(())
        };
        keep().with_context(|| format!("keeping a layer in {}", self.directory.display()))
    }
}

/// Gives a directory its name by one rename. Another one that has the name becomes `old`, or changes names with the new one.
fn publish(new: &Path, name: &Path, old: &Path, exchange: impl Fn(&Path, &Path) -> io::Result<()>) -> io::Result<()> {
    match fs::rename(new, name) {
        Err(_) if name.symlink_metadata().is_ok() => {}
        done => return done,
    }
    if exchange(new, name).is_err() {
        // Between the two renames there is no such layer.
        fs::rename(name, old)?;
        fs::rename(new, name)?;
    }
    Ok(())
}

/// Exchanges two names. Some file systems, such as NFS, cannot.
fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    Ok(renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE)?)
}

/// Gives a layer the time of its last use. Those that are not used any more can be found by it.
fn mark_as_used(layer: &Path) -> Result<()> {
    match File::open(layer).and_then(|directory| directory.set_modified(SystemTime::now())) {
        // A cache that this user cannot write to.
        Err(error) if [ErrorKind::PermissionDenied, ErrorKind::ReadOnlyFilesystem].contains(&error.kind()) => Ok(()),
        marked => marked.with_context(|| format!("setting the time of {}", layer.display())),
    }
}

/// Reads the description of a layer; none if there is no such layer.
fn read(layer: &Path) -> Result<Option<Description>> {
    let path = layer.join(DESCRIPTION);
    match fs::metadata(&path) {
        Err(_) if layer.symlink_metadata().is_err() => return Ok(None),
        Err(error) => return Err(error.into()),
        // A pipe would block.
        Ok(metadata) => ensure!(metadata.is_file(), "it is no regular file"),
    }
    let mut json = Vec::new();
    File::open(&path)?.take(LONGEST).read_to_end(&mut json)?;
    Ok(Some(serde_json::from_slice(&json)?))
}

#[cfg(test)]
mod tests;
