//! The store image: a file system whose root is the store, with the registration of its store paths.

use crate::build::output::directory::{Directory, clone_or_copy, describe};
use crate::build::store::divide::{divide, numbered};
use crate::build::store::erofs;
use crate::build::store::layers::{Cached, Layer, LayerCache};
use crate::build::store::packing::{Format, Packing};
use crate::build::store::squashfs;
use crate::contract::manifest::FileEntry;
use crate::contract::plan::{MAX_IMAGES, REGISTRATION};
use crate::formats::registration::{self, Registered};
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
/// image. A cache of layers that cannot be read or written. No room.
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
                let (planned, rest) = layers.plan(closure, self.packing)?;
                planned.iter().try_for_each(|layer| self.layer(layers, layer))?;
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
    fn layer(&mut self, layers: &LayerCache, layer: &Layer) -> Result<()> {
        let suffix = format!(".{}", self.packing.format.name());
        let cached = match layers.get(layer, &suffix, self.progress) {
            Cached::Whole(file, entry) => {
                Some((file, entry)).filter(|(_, entry)| entry.bytes <= self.packing.max_image)
            }
            Cached::Missing => None,
            Cached::Damaged(file, reason) => {
                self.progress.say(&format!("{} is damaged ({reason}): packing this layer again", file.display()));
                None
            }
        };
        let name = numbered(self.name, self.images.len());
        let Some((file, entry)) = cached else {
            let before = self.images.len();
            self.pack(&layer.paths, None)?;
            // A layer that had to be divided is not kept.
            if let [image] = &self.images[before..] {
                layers.put(layer, &suffix, &self.out.join(name), image)?;
            }
            return Ok(());
        };
        clone_or_copy(&file, &self.out.join(&name))
            .with_context(|| format!("taking {} from the cache", file.display()))?;
        self.images.push(FileEntry { name, ..entry });
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
mod tests {
    use super::*;

    #[test]
    fn a_damaged_layer_of_the_cache_is_packed_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let store_path = |name: &str, mib: u64| {
            fs::write(path(name), name.repeat(100_000)).unwrap();
            let path = path(name).to_str().unwrap().to_owned();
            Registered { path, nar_hash: format!("sha256:{name}"), nar_size: mib << 20, references: Vec::new() }
        };
        let closure = [store_path("large", 100), store_path("small", 0)];
        let layers = LayerCache { directory: path("cache"), max_images: 2 };
        let packing = Packing { compression: "gzip".parse().ok(), ..Packing::default() };
        let images = |name: &str| {
            let mut output = Directory::create(&path(name)).unwrap();
            let made = pack(&closure, &mut output, "store.squashfs", &packing, Some(&layers), Progress::Quiet).unwrap();
            output.publish().unwrap();
            made.iter().map(|image| fs::read(path(name).join(&image.name)).unwrap()).collect::<Vec<_>>()
        };
        let expected = images("first");
        assert_eq!(expected.len(), 2);
        let cached = fs::read_dir(path("cache")).unwrap().map(|entry| entry.unwrap().path());
        let layer = cached.into_iter().find(|path| path.extension() == Some("squashfs".as_ref())).unwrap();
        for damage in [|image: &mut Vec<u8>| image[1000] ^= 1, |image: &mut Vec<u8>| image.truncate(4096)] {
            let mut image = fs::read(&layer).unwrap();
            damage(&mut image);
            // Another file: the first build has a link to this one.
            fs::remove_file(&layer).unwrap();
            fs::write(&layer, image).unwrap();
            assert!(images("second") == expected);
            assert!(fs::read(&layer).unwrap() == expected[0]);
        }
    }
}
