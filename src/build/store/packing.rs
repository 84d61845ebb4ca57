//! How the store is packed: the file system, and what decides about its compression.

use crate::contract::plan::MAX_UNPACKED;
use crate::formats::magic::{self, FileKind};
use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use std::fmt;
use std::fs;
use std::io::Read;
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
    #[must_use]
    pub fn file_name(self) -> &'static str {
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
    pub fn of(image: &Path) -> Result<Self> {
        let mut start = Vec::new();
        let read = fs::File::open(image).and_then(|file| file.take(magic::LENGTH).read_to_end(&mut start));
        read.with_context(|| format!("reading the store image {}", image.display()))?;
        match magic::recognize(&start) {
            Some(FileKind::Squashfs) => Ok(Self::Squashfs),
            Some(FileKind::Erofs) => Ok(Self::Erofs),
            _ => bail!("{} is neither a squashfs nor an erofs; give what firn image made", image.display()),
        }
    }

    /// As the file system, and its module, is called.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Squashfs => "squashfs",
            Self::Erofs => "erofs",
        }
    }
}

impl Packing {
    /// The words about compression that were given, or those of the profile. Of squashfs that for a release is nixpkgs'
    /// default (`installer/netboot/netboot.nix`).
    #[must_use]
    pub fn compression(&self) -> Compression {
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
    #[must_use]
    pub fn block_size(&self) -> u32 {
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
