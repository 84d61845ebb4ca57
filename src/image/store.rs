//! The store image: a file system whose root is the store, with the registration of what is in it.

use super::nix::{self, Registered};
use super::progress::Progress;
use super::{erofs, squashfs};
use crate::magic;
use crate::plan::REGISTRATION;
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
#[derive(Debug, Default, Clone)]
pub struct Packing {
    /// As which file system.
    pub format: Format,
    /// What decides where nothing else is said.
    pub profile: Profile,
    /// The compressor, in the words of mksquashfs or mkfs.erofs.
    pub compression: Option<Compression>,
    /// How much is compressed at a time, bytes.
    pub block_size: Option<u32>,
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

    /// How much is compressed at a time, bytes.
    pub(super) fn block_size(&self) -> u32 {
        self.block_size.unwrap_or(match self.format {
            Format::Squashfs => 1 << 20,
            Format::Erofs => 1 << 16,
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

/// Makes the store image of a closure at `image`, with its registration in it.
///
/// # Errors
///
/// A tool that is missing on this machine, or that fails: its last words are in the error.
pub fn make(closure: &[Registered], image: &Path, packing: &Packing, scratch: &Path, progress: Progress) -> Result<()> {
    let registration = scratch.join(REGISTRATION);
    fs::write(&registration, nix::registration(closure)).context("writing the registration")?;
    // Whatever the umask of this build: everybody on the booted system may read it, as everything else in the store.
    fs::set_permissions(&registration, Permissions::from_mode(0o444)).context("making the registration readable")?;

    let paths: Vec<_> =
        [registration.as_path()].into_iter().chain(closure.iter().map(|path| Path::new(&path.path))).collect();
    let step = progress.step("Packing the store", closure.iter().map(|path| path.nar_size).sum());
    match packing.format {
        Format::Squashfs => squashfs::make(&paths, image, packing, &step)?,
        Format::Erofs => erofs::make(&paths, image, packing, scratch, &step)?,
    }
    step.done();
    Ok(())
}
