//! Words that several subcommands take.

use anyhow::{Context, Result};
use clap::Args;
use firn::build::Options;
use firn::build::ramdisk::compressor::Compressor;
use firn::build::ramdisk::database::Database;
use firn::build::ramdisk::placement::Placement;
use firn::build::ramdisk::segments::Segments;
use firn::build::store::layers::Layers;
use firn::build::store::packing::{Compression, Format, Packing, Profile};
use firn::build::system::closure::Contents;
use firn::formats::cpio::MAX_MEMBER;
use firn::formats::size;
use std::path::PathBuf;

/// What is in the store image.
#[derive(Args)]
pub struct StoreWords {
    /// The system: a NixOS toplevel in the Nix store, or a link to one such as ./result
    toplevel: PathBuf,

    /// Take the closure from this directory, which nixpkgs' closureInfo made, and ask no Nix database
    #[arg(long, value_name = "DIR")]
    closure_info: Option<PathBuf>,

    /// Pack this store path with its closure, too; can be given several times
    #[arg(long = "store-content", value_name = "PATH")]
    added: Vec<PathBuf>,

    /// Leave this store path out, and its registration; can be given several times
    #[arg(long = "exclude", value_name = "PATH")]
    excluded: Vec<PathBuf>,

    /// Leave the system's kernel and its own ramdisk out of the store: the boot loader has them, or firn's
    #[arg(long)]
    without_kernel: bool,
}

/// How the store image is packed.
#[derive(Args)]
pub struct PackingWords {
    /// The file system of the store image
    #[arg(long, value_enum, default_value_t)]
    format: Format,

    /// What counts: the time of the build (dev) or the size of the image (release)
    #[arg(long, value_enum, default_value_t)]
    profile: Profile,

    /// How the store is compressed, in place of what the profile says: the compressor and its options in the words of
    /// mksquashfs ("zstd -Xcompression-level 19") or of mkfs.erofs -z ("lz4hc,12"), or "none"
    #[arg(long, value_name = "WORDS")]
    compression: Option<Compression>,

    /// How much is compressed at a time, 4K to 1M. By default erofs has 64K and squashfs 1M, or 128K with --profile dev
    #[arg(long, value_name = "SIZE", value_parser = block_size)]
    block_size: Option<u32>,

    /// The largest that a store image may be, such as 2G; a store that takes more is packed as several images, which stage 1 stacks.
    /// By default 2 GiB less a byte, the most that every kernel unpacks. One that stays where the boot loader puts it may have twice
    /// that
    #[arg(long, value_name = "SIZE", value_parser = image_size)]
    max_image: Option<u64>,

    /// Keep what is large in this directory, as store images that the next build takes from there if their store paths are
    /// still the same: it packs again only what has changed
    #[arg(long, value_name = "DIR")]
    layer_cache: Option<PathBuf>,

    /// How many store images there are then at most, 1 to 15; with 1 nothing is kept
    #[arg(long, value_name = "NUMBER", default_value_t = 8, requires = "layer_cache", value_parser = clap::value_parser!(u8).range(1..=15))]
    layers: u8,
}

/// What is in the ramdisk beside the store image.
#[derive(Args)]
pub struct RamdiskWords {
    /// A kernel module that every boot loads, with all it needs; can be given several times
    #[arg(long = "module", value_name = "NAME")]
    modules: Vec<String>,

    /// A kernel module that is loaded if a device of the machine asks for it; can be given several times
    #[arg(long = "available-module", value_name = "NAME")]
    available_modules: Vec<String>,

    /// The firn-init to pack; without this the one that lies beside this program
    #[arg(long, value_name = "FILE")]
    firn_init: Option<PathBuf>,

    /// Pack this static busybox: a boot that fails then offers a shell, if `boot.shell_on_fail` is on the command line
    #[arg(long, value_name = "FILE")]
    rescue_shell: Option<PathBuf>,

    /// How firn's own segment is compressed, which is everything but the store image. By default by zstd, and not at all with
    /// --profile dev
    #[arg(long, value_enum)]
    compressor: Option<Compressor>,

    /// At which level: zstd has 1 to 19, xz 0 to 9, gzip 1 to 9. By default the highest, and a fast one with --profile dev
    #[arg(long, value_name = "LEVEL")]
    compressor_level: Option<u32>,

    /// Put this ready-made segment (a cpio archive, compressed or not) before firn's own, such as a processor's microcode; can
    /// be given several times
    #[arg(long = "prepend", value_name = "FILE")]
    before: Vec<PathBuf>,

    /// Put this ready-made segment after firn's own, whose files it may replace; can be given several times
    #[arg(long = "append", value_name = "FILE")]
    after: Vec<PathBuf>,

    /// When the Nix database of the booted system is made
    #[arg(long, value_enum, value_name = "WHEN", default_value_t)]
    database: Database,

    /// Where stage 1 has the store image: with auto it stays where the boot loader put it, if the kernel is 6.8 or newer, which
    /// takes half of the memory
    #[arg(long, value_enum, value_name = "WHERE", default_value_t)]
    image_placement: Placement,

    /// Have every boot read the whole store image and compare it with its SHA-256 before it is mounted
    #[arg(long)]
    verify: bool,
}

impl StoreWords {
    /// The options that these words ask for, and no others.
    pub fn options(self, out: PathBuf) -> Options {
        let contents = Contents {
            closure_info: self.closure_info,
            added: self.added,
            excluded: self.excluded,
            without_kernel: self.without_kernel,
        };
        Options { contents, ..Options::new(self.toplevel, out, PathBuf::new()) }
    }
}

impl PackingWords {
    /// Adds what these words ask for.
    pub fn add_to(self, options: Options) -> Options {
        let packing = Packing {
            format: self.format,
            profile: self.profile,
            compression: self.compression,
            block_size: self.block_size,
            max_image: self.max_image.unwrap_or(Packing::default().max_image),
        };
        let layers = self.layer_cache.map(|cache| Layers { cache, count: self.layers.into() });
        let segments = Segments { profile: self.profile, ..options.segments };
        Options { packing, layers, segments, ..options }
    }
}

impl RamdiskWords {
    /// Adds what these words ask for.
    pub fn add_to(self, options: Options) -> Result<Options> {
        Ok(Options {
            firn_init: self.firn_init.map_or_else(beside_this_program, Ok)?,
            modules: self.modules,
            available_modules: self.available_modules,
            rescue_shell: self.rescue_shell,
            segments: Segments {
                compressor: self.compressor,
                level: self.compressor_level,
                before: self.before,
                after: self.after,
                ..options.segments
            },
            database: self.database,
            verify: self.verify,
            placement: self.image_placement,
            ..options
        })
    }
}

/// Reads a size such as `131072`, `128K` or `1M`, as mksquashfs takes it for its blocks.
fn block_size(text: &str) -> Result<u32, String> {
    let bytes = size::parse(text).and_then(|bytes| u32::try_from(bytes).ok());
    bytes
        .filter(|bytes| bytes.is_power_of_two() && (4 << 10..=1 << 20).contains(bytes))
        .ok_or_else(|| "it takes a power of two from 4K to 1M".into())
}

/// Reads the largest size of a store image.
fn image_size(text: &str) -> Result<u64, String> {
    size::parse(text)
        .filter(|bytes| (1 << 20..=MAX_MEMBER).contains(bytes))
        .ok_or_else(|| format!("it takes 1M to {MAX_MEMBER} bytes, for which there is a file in a ramdisk"))
}

fn beside_this_program() -> Result<PathBuf> {
    let program =
        std::env::current_exe().context("looking for firn-init beside this program; name it with --firn-init")?;
    Ok(program.with_file_name("firn-init"))
}

#[cfg(test)]
mod tests {
    use super::{block_size, image_size};

    #[test]
    fn block_sizes() {
        for (text, bytes) in
            [("4096", 4096), ("128K", 131_072), ("128k", 131_072), ("1M", 1_048_576), ("1m", 1_048_576)]
        {
            assert_eq!(block_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "M", "0", "1000", "2048", "2M", "9999999M", "1G", "-1", "1 M"] {
            assert!(block_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn image_sizes() {
        for (text, bytes) in [("1M", 1 << 20), ("2g", 2 << 30), ("4294967295", 4_294_967_295)] {
            assert_eq!(image_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "4G", "100", "99999999999G", "1T"] {
            assert!(image_size(text).is_err(), "{text}");
        }
    }
}
