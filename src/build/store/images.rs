//! The store image: a file system whose root is the store, with the registration of its store paths.

use crate::build::output::checked::describe;
use crate::build::output::directory::Directory;
use crate::build::store::cache::{Cached, OpenCache};
use crate::build::store::divide::{divide, numbered};
use crate::build::store::erofs;
use crate::build::store::layer::Layer;
use crate::build::store::layers::{self, LayerCache};
use crate::build::store::packing::{Format, Packing};
use crate::build::store::{recipe, squashfs};
use crate::contract::manifest::FileEntry;
use crate::contract::plan::{MAX_IMAGES, REGISTRATION};
use crate::formats::registration::{self, Registered};
use crate::host::interrupt;
use crate::host::progress::Progress;
use anyhow::{Context, Result, bail, ensure};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Packs a closure into an output directory, as the store image `name`, which also holds the registration of all its paths.
/// With a cache of layers, or if one image would be larger than `packing.max_image`, the store is packed as several images with
/// [numbered] names; the last one holds the registration then.
///
/// # Errors
///
/// A tool that is missing on this machine or that fails (the error has its last lines). A store path that is too large for an
/// image. A cache of layers that cannot be read. No room.
pub fn pack(
    closure: &[Registered],
    output: &mut Directory,
    name: &str,
    packing: &Packing,
    layers: Option<&LayerCache>,
    progress: Progress,
) -> Result<Vec<FileEntry>> {
    let mut packer = StorePacker { out: output.scratch(), name, packing, progress, images: Vec::new() };
    packer.pack_store(closure, layers).map_err(|error| output.write_error(name, error))?;
    let images = packer.images;
    output.add(&images);
    Ok(images)
}

/// Packs a store into a directory, as one image after the other.
struct StorePacker<'a> {
    out: &'a Path,
    name: &'a str,
    packing: &'a Packing,
    progress: Progress,
    images: Vec<FileEntry>,
}

impl StorePacker<'_> {
    /// Packs a closure: the layers first, then the rest with the registration.
    fn pack_store(&mut self, closure: &[Registered], layers: Option<&LayerCache>) -> Result<()> {
        let registration = self.out.join(REGISTRATION);
        fs::write(&registration, registration::write(closure)).context("writing the registration")?;
        // Independent of the umask of this build: everybody on the booted system may read the store.
        fs::set_permissions(&registration, Permissions::from_mode(0o444))
            .context("making the registration readable")?;

        let rest = match layers {
            None => closure.to_vec(),
            Some(layers) => {
                let cache = OpenCache::open(&layers.directory, recipe::of(self.packing)?, self.progress)?;
                let (planned, rest) = layers::plan(&cache, closure, layers.max_images)?;
                planned.iter().try_for_each(|layer| self.layer(&cache, layer))?;
                rest
            }
        };
        self.pack(&rest, Some(&registration))?;
        ensure!(
            self.images.len() <= MAX_IMAGES,
            "the store needs {} images, and stage 1 stacks at most {MAX_IMAGES}: remove packages from the system, or compress it \
             better (--profile release)",
            self.images.len()
        );
        Ok(())
    }

    /// Takes a layer from the cache, or packs it and puts it there.
    fn layer(&mut self, cache: &OpenCache, layer: &Layer) -> Result<()> {
        let name = numbered(self.name, self.images.len());
        let image = self.out.join(&name);
        match cache.take(layer, &image)? {
            Cached::Whole(entry) if entry.bytes <= self.packing.max_image => {
                self.images.push(FileEntry { name, ..entry });
                return Ok(());
            }
            Cached::Whole(_) => fs::remove_file(&image).with_context(|| format!("deleting {}", image.display()))?,
            Cached::Missing => {}
            Cached::Damaged(file, reason) => {
                self.progress.say(&format!("{} is damaged ({reason}): packing this layer again", file.display()));
            }
        }
        let before = self.images.len();
        self.pack(&layer.paths, None)?;
        // A layer that had to be divided is not kept.
        if let [entry] = &self.images[before..]
            && let Err(error) = cache.put(layer, &image, entry)
        {
            interrupt::check()?;
            // The build needs no cache: it may be read-only, or its disk full.
            self.progress.say(&format!("The next build has to pack a layer again: {error:#}"));
        }
        Ok(())
    }

    /// Packs store paths as an image, or as several if one would be too large; the last one has the registration.
    fn pack(&mut self, closure: &[Registered], registration: Option<&Path>) -> Result<()> {
        let name = numbered(self.name, self.images.len());
        let image = self.out.join(&name);
        let paths: Vec<_> = registration.into_iter().chain(closure.iter().map(|path| Path::new(&path.path))).collect();
        let step = self.progress.step("Packing the store", closure.iter().map(|path| path.nar_size).sum());
        match self.packing.format {
            Format::Squashfs => squashfs::make(&paths, &image, self.packing, &step)?,
            Format::Erofs => erofs::make(&paths, &image, self.packing, self.out, &step)?,
        }
        step.done();
        let limit = self.packing.max_image;
        let bytes = fs::metadata(&image).with_context(|| format!("reading the size of {}", image.display()))?.len();
        if bytes <= limit {
            self.images.push(FileEntry { name, ..describe(&image, self.progress)? });
            return Ok(());
        }
        if let [path] = closure {
            bail!(
                "the store image of {} alone has {bytes} bytes, and a store image may have {limit}: divide the package, or remove \
                 it from the system",
                path.path,
            );
        }
        // The size of an image is known only after packing it.
        let count = usize::try_from(bytes / limit)?.saturating_add(1).min(closure.len());
        self.progress.say(&format!(
            "This image has {bytes} bytes, and a store image may have {limit}: packing it again, as {count} images that stage 1 \
             stacks"
        ));
        fs::remove_file(&image).with_context(|| format!("deleting {}", image.display()))?;
        let groups = divide(closure, count);
        for (number, group) in groups.iter().enumerate() {
            self.pack(group, registration.filter(|_| number + 1 == groups.len()))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
