//! How the store is packed: the file system, its compression and the size of the images.

use crate::contract::plan::MAX_UNPACKED;
use crate::formats::magic::{self, FileKind};
use crate::formats::store_image;
use crate::host::file;
use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use std::fmt;
use std::io::Read;
use std::path::Path;
use std::str::FromStr;

/// The file system of a store image.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Smaller, and the format that nixpkgs uses; made by mksquashfs.
    #[default]
    Squashfs,
    /// Larger, and read several times faster (docs/builder.md); made by mkfs.erofs.
    Erofs,
}

/// The goal of the compression.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Profile {
    /// A short build.
    Dev,
    /// A small image.
    #[default]
    Release,
}

/// How the store is packed.
#[derive(Debug, Clone)]
pub struct Packing {
    /// The file system.
    pub format: Format,
    /// The goal that decides where the other fields are not set.
    pub profile: Profile,
    /// The compressor and its options, as mksquashfs or mkfs.erofs read them.
    pub compression: Option<StoreCompression>,
    /// The size of the blocks that are compressed separately, bytes.
    pub block_size: Option<u32>,
    /// The largest size of an image, bytes. A store that needs more is packed as several images.
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

/// A compressor and its options. For mksquashfs the form of nixpkgs' `netboot.squashfsCompression` (`zstd -Xcompression-level 19`),
/// for mkfs.erofs the value of its option `-z` (`lz4hc,12`), for both `none`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreCompression(String);

impl Format {
    /// The name of the image in the output directory and in the ramdisk. For squashfs it is the name that nixpkgs uses.
    #[must_use]
    pub fn file_name(self) -> &'static str {
        match self {
            Self::Squashfs => "nix-store.squashfs",
            Self::Erofs => "nix-store.erofs",
        }
    }

    /// The format of an image, by its superblock.
    ///
    /// # Errors
    ///
    /// A file that cannot be read, that is no regular file, that has another format, or that is shorter than its file system.
    pub fn of(image: &Path) -> Result<Self> {
        let wanted = "an output of firn image";
        let file = file::open(image, wanted)?;
        let mut start = Vec::new();
        let read = (&file).take(store_image::LENGTH as u64).read_to_end(&mut start);
        read.with_context(|| format!("reading the store image {}; give {wanted}", image.display()))?;
        let format = match magic::recognize(&start) {
            Some(FileKind::Squashfs) => Self::Squashfs,
            Some(FileKind::Erofs) => Self::Erofs,
            _ => bail!("{} is neither a squashfs nor an erofs image; give {wanted}", image.display()),
        };
        let Some(superblock) = store_image::recognize(&start) else {
            bail!(
                "{} is no store image that Linux mounts, though it begins like a {}; give {wanted}",
                image.display(),
                format.name()
            )
        };
        let bytes = file.metadata().with_context(|| format!("looking at {}", image.display()))?.len();
        ensure!(
            superblock.used <= bytes,
            "{} has {bytes} bytes, and its {} {}: it is cut off; give {wanted}",
            image.display(),
            format.name(),
            superblock.used
        );
        Ok(format)
    }

    /// The name of the file system and of its kernel module.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Squashfs => "squashfs",
            Self::Erofs => "erofs",
        }
    }
}

impl Packing {
    /// The compression that is set, or that of the profile. For squashfs the release profile has the default of nixpkgs
    /// (`installer/netboot/netboot.nix`).
    #[must_use]
    pub fn compression(&self) -> StoreCompression {
        let of_profile = match (self.format, self.profile) {
            (Format::Squashfs, Profile::Dev) => "zstd -Xcompression-level 3",
            (Format::Squashfs, Profile::Release) => "zstd -Xcompression-level 19",
            (Format::Erofs, Profile::Dev) => "lz4",
            (Format::Erofs, Profile::Release) => "lz4hc,12",
        };
        self.compression.clone().unwrap_or_else(|| StoreCompression(of_profile.into()))
    }

    /// The block size that is set, or that of the format, bytes. A squashfs with smaller blocks is larger and is read faster
    /// (docs/performance.md, "The defaults"). nixpkgs has 1 MiB (`lib/make-squashfs.nix`).
    #[must_use]
    pub fn block_size(&self) -> u32 {
        self.block_size.unwrap_or(match self.format {
            Format::Squashfs => 1 << 17,
            Format::Erofs => 1 << 16,
        })
    }
}

impl fmt::Display for StoreCompression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for StoreCompression {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        ensure!(!text.trim().is_empty(), "no compressor is given; \"none\" leaves the store uncompressed");
        Ok(Self(text.trim().into()))
    }
}
