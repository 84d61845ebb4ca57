//! The store image: a file system whose root is the store, with the registration of what is in it.

use super::layers::{Layer, Layers};
use super::nix::{self, Registered};
use super::output::{Entry, describe, link_or_copy};
use super::progress::Progress;
use super::{erofs, squashfs};
use crate::magic;
use crate::plan::{MAX_IMAGES, MAX_UNPACKED, REGISTRATION};
use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use std::fmt;
use std::fs::{self, Permissions};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::str::FromStr;

/// The file system of a store image.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// What nixpkgs uses: the smaller one.
    #[default]
    Squashfs,
    /// Read in a quarter of the time, and half as large again (docs/builder.md).
    Erofs,
}

/// What counts.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Profile {
    /// The time of the build.
    Dev,
    /// The size of the image.
    #[default]
    Release,
}

/// How the store is packed.
#[derive(Debug, Clone)]
pub struct Packing {
    /// As which file system.
    pub format: Format,
    /// What decides where nothing else is said.
    pub profile: Profile,
    /// The compressor, in the words of mksquashfs or mkfs.erofs.
    pub compression: Option<Compression>,
    /// How much is compressed at a time, bytes.
    pub block_size: Option<u32>,
    /// The largest that an image may be, bytes. A store that takes more is packed as several.
    pub max_image: u64,
}

impl Default for Packing {
    fn default() -> Self {
        Self {
            format: Format::default(),
            profile: Profile::default(),
            compression: None,
            block_size: None,
            max_image: MAX_UNPACKED,
        }
    }
}

/// Words about compression: for mksquashfs in the form of nixpkgs' `netboot.squashfsCompression`, the compressor and its options
/// (`zstd -Xcompression-level 19`); for mkfs.erofs what follows its `-z` (`lz4hc,12`); for both `none`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compression(String);

impl Format {
    /// The image's name beside the ramdisk, and at the root of it. That of squashfs is nixpkgs'.
    pub(super) fn file_name(self) -> &'static str {
        match self {
            Self::Squashfs => "nix-store.squashfs",
            Self::Erofs => "nix-store.erofs",
        }
    }

    /// What an image is, by its magic number.
    ///
    /// # Errors
    ///
    /// A file that cannot be read, or one that is neither.
    pub(super) fn of(image: &Path) -> Result<Self> {
        let mut start = Vec::new();
        let read = fs::File::open(image).and_then(|file| file.take(magic::LENGTH).read_to_end(&mut start));
        read.with_context(|| format!("reading the store image {}", image.display()))?;
        match magic::recognize(&start) {
            Some(magic::File::Image("squashfs")) => Ok(Self::Squashfs),
            Some(magic::File::Image("erofs")) => Ok(Self::Erofs),
            _ => bail!("{} is neither a squashfs nor an erofs; give what firn image made", image.display()),
        }
    }

    /// As the file system, and its module, is called.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Squashfs => "squashfs",
            Self::Erofs => "erofs",
        }
    }
}

impl Packing {
    /// The words about compression that were given, or those of the profile. Of squashfs that for a release is nixpkgs'
    /// default (`installer/netboot/netboot.nix`).
    pub(super) fn compression(&self) -> Compression {
        let of_profile = match (self.format, self.profile) {
            (Format::Squashfs, Profile::Dev) => "zstd -Xcompression-level 3",
            (Format::Squashfs, Profile::Release) => "zstd -Xcompression-level 19",
            (Format::Erofs, Profile::Dev) => "lz4",
            (Format::Erofs, Profile::Release) => "lz4hc,12",
        };
        self.compression.clone().unwrap_or_else(|| Compression(of_profile.into()))
    }

    /// How much is compressed at a time, bytes: what was given, or what the profile wants. A squashfs with smaller blocks is larger and
    /// read faster (docs/performance.md, "The defaults").
    pub(super) fn block_size(&self) -> u32 {
        self.block_size.unwrap_or(match (self.format, self.profile) {
            (Format::Squashfs, Profile::Dev) => 1 << 17,
            (Format::Squashfs, Profile::Release) => 1 << 20,
            (Format::Erofs, _) => 1 << 16,
        })
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Compression {
    type Err = anyhow::Error;

    fn from_str(words: &str) -> Result<Self> {
        ensure!(!words.trim().is_empty(), "there is no compressor; \"none\" leaves the store uncompressed");
        Ok(Self(words.trim().into()))
    }
}

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
) -> Result<Vec<Entry>> {
    let registration = out.join(REGISTRATION);
    fs::write(&registration, nix::registration(closure)).context("writing the registration")?;
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
    images: Vec<Entry>,
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
        self.images.push(Entry { name, ..entry });
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
            self.images.push(Entry { name, ..describe(&image, self.progress)? });
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

/// The name of the image with this number, counted from 0: `nix-store.squashfs`, `nix-store-2.squashfs`.
pub fn numbered(name: &str, number: usize) -> String {
    let (stem, suffix) = name.split_at(name.rfind('.').unwrap_or(name.len()));
    if number == 0 { name.into() } else { format!("{stem}-{}{suffix}", number + 1) }
}

/// A closure in at most `count` parts of about the same size, none of them empty.
pub fn divide(closure: &[Registered], count: usize) -> Vec<&[Registered]> {
    let size = |path: &Registered| path.nar_size.max(1);
    let each = (closure.iter().map(size).sum::<u64>() / count as u64).max(1);
    let mut before = 0;
    // A path that lies on the border goes where the larger half of it is.
    let numbered: Vec<_> = closure
        .iter()
        .map(|path| {
            let middle = before + size(path) / 2;
            before += size(path);
            (middle / each).min(count as u64 - 1)
        })
        .collect();
    let mut rest = closure;
    let parts = numbered.chunk_by(|a, b| a == b).map(|part| {
        let (part, after) = rest.split_at(part.len());
        rest = after;
        part
    });
    parts.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_several_images() {
        assert_eq!(
            [0, 1, 14].map(|number| numbered("a.b.erofs", number)),
            ["a.b.erofs", "a.b-2.erofs", "a.b-15.erofs"]
        );
        assert_eq!(numbered("store", 1), "store-2");
    }

    #[test]
    fn parts_of_a_closure() {
        let closure = |sizes: &[u64]| -> Vec<_> {
            let path =
                |size| Registered { path: String::new(), nar_hash: String::new(), nar_size: size, references: vec![] };
            sizes.iter().map(|size| path(*size)).collect()
        };
        for (sizes, count, expected) in [
            (&[1, 2, 3][..], 1, &[3][..]),
            (&[1, 1, 1, 1], 2, &[2, 2]),
            (&[9, 1, 1, 1], 2, &[1, 3]),
            (&[1, 1, 1, 9], 2, &[3, 1]),
            (&[5, 5, 5], 3, &[1, 1, 1]),
            (&[0, 0, 0], 3, &[1, 1, 1]),
            (&[7], 2, &[1]),
            (&[u64::MAX / 4, u64::MAX / 4], 2, &[1, 1]),
        ] {
            let closure = closure(sizes);
            let parts: Vec<_> = divide(&closure, count).into_iter().map(<[_]>::len).collect();
            assert_eq!(parts, expected, "{sizes:?}");
        }
    }
}
