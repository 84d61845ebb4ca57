//! The store image: a file system whose root is the store, with the registration of what is in it.

use crate::build::output::directory::{describe, link_or_copy};
use crate::build::store::divide::{divide, numbered};
use crate::build::store::erofs;
use crate::build::store::layers::{Layer, Layers};
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

/// Makes the store image of a closure in the directory `out`, with the registration of all of it; or several images, if there are
/// `layers`, and for none to be larger than `packing.max_image`; the last one has the registration then. They are called `name`,
/// and what [`numbered`] makes of it.
///
/// # Errors
///
/// A tool that is missing on this machine, or that fails: its last words are in the error. A store path that is too large for an
/// image of its own. A cache of layers that cannot be read or written.
pub fn make(
    closure: &[Registered],
    out: &Path,
    name: &str,
    packing: &Packing,
    layers: Option<&Layers>,
    progress: Progress,
) -> Result<Vec<FileEntry>> {
    let registration = out.join(REGISTRATION);
    fs::write(&registration, registration::write(closure)).context("writing the registration")?;
    // Whatever the umask of this build: everybody on the booted system may read it, as everything else in the store.
    fs::set_permissions(&registration, Permissions::from_mode(0o444)).context("making the registration readable")?;

    let mut store = Store { out, name, packing, progress, images: Vec::new() };
    let rest = match layers {
        None => closure.to_vec(),
        Some(layers) => {
            let (planned, rest) = layers.plan(closure, packing)?;
            planned.iter().try_for_each(|layer| store.layer(layers, layer))?;
            rest
        }
    };
    store.pack(&rest, Some(&registration))?;
    ensure!(
        store.images.len() <= MAX_IMAGES,
        "the store takes {} images and stage 1 stacks at most {MAX_IMAGES}: take packages out of the system, or compress it better \
         (--profile release)",
        store.images.len()
    );
    Ok(store.images)
}

/// The images of a store that is being packed.
struct Store<'a> {
    out: &'a Path,
    name: &'a str,
    packing: &'a Packing,
    progress: Progress,
    images: Vec<FileEntry>,
}

impl Store<'_> {
    /// Takes a layer from the cache, or makes it and puts it there.
    fn layer(&mut self, layers: &Layers, layer: &Layer) -> Result<()> {
        let suffix = format!(".{}", self.packing.format.name());
        let cached = layers.get(layer, &suffix).filter(|(_, entry)| entry.bytes <= self.packing.max_image);
        let name = numbered(self.name, self.images.len());
        let Some((file, entry)) = cached else {
            let before = self.images.len();
            self.pack(&layer.paths, None)?;
            // One that had to be divided is no layer.
            if let [image] = &self.images[before..] {
                layers.put(layer, &suffix, &self.out.join(name), image)?;
            }
            return Ok(());
        };
        link_or_copy(&file, &self.out.join(&name))
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
        let most = self.packing.max_image;
        let bytes = fs::metadata(&image).with_context(|| format!("looking at {}", image.display()))?.len();
        if bytes <= most {
            self.images.push(FileEntry { name, ..describe(&image, self.progress)? });
            return Ok(());
        }
        if let [path] = closure {
            bail!(
                "the store image of {} alone has {bytes} bytes and a store image at most {most}: divide the package, or leave it \
                 out of the system",
                path.path,
            );
        }
        // How large an image becomes is known when it is there.
        let count = usize::try_from(bytes / most)?.saturating_add(1).min(closure.len());
        self.progress.say(&format!(
            "This image has {bytes} bytes, and one has at most {most}: packing it again, as {count} images that stage 1 stacks"
        ));
        fs::remove_file(&image).with_context(|| format!("deleting {}", image.display()))?;
        let parts = divide(closure, count);
        for (number, part) in parts.iter().enumerate() {
            self.pack(part, registration.filter(|_| number + 1 == parts.len()))?;
        }
        Ok(())
    }
}
