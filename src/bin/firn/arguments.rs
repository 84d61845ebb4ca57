//! Arguments that several subcommands have.

use anyhow::{Context, Result};
use clap::Args;
use firn::build::options::BuildOptions;
use firn::build::ramdisk::compressor::Compressor;
use firn::build::ramdisk::database::DatabaseMode;
use firn::build::ramdisk::placement::Placement;
use firn::build::ramdisk::program;
use firn::build::ramdisk::segments::SegmentOptions;
use firn::build::store::layers::LayerCache;
use firn::build::store::packing::{Format, Packing, Profile, StoreCompression};
use firn::build::system::closure::StoreSelection;
use firn::contract::plan::MAX_IMAGES;
use firn::formats::cpio::MAX_MEMBER;
use firn::formats::size;
use std::env;
use std::path::PathBuf;

/// The contents of the store image.
#[derive(Args)]
pub struct StoreArguments {
    /// The system: a NixOS toplevel in the Nix store, or a symlink to one such as ./result
    toplevel: PathBuf,

    /// Read the closure from this directory, made by closureInfo of nixpkgs, instead of the Nix database
    #[arg(long, value_name = "DIR")]
    closure_info: Option<PathBuf>,

    /// Also pack this store path with its closure, which Nix then keeps in the booted system; may be given several times
    #[arg(long = "store-content", value_name = "PATH")]
    added: Vec<PathBuf>,

    /// Leave out this store path and its registration; may be given several times
    #[arg(long = "exclude", value_name = "PATH")]
    excluded: Vec<PathBuf>,

    /// Leave the kernel and the system's own ramdisk out of the store image (the boot loader gets its own copy)
    #[arg(long)]
    without_kernel: bool,
}

/// How the store image is packed.
#[derive(Args)]
pub struct PackingArguments {
    /// The file system of the store image
    #[arg(long, value_enum, default_value_t)]
    format: Format,

    /// Optimise for build time (dev) or image size (release)
    #[arg(long, value_enum, default_value_t)]
    profile: Profile,

    /// Compressor of the store and its options, as mksquashfs -comp ("zstd -Xcompression-level 19") or mkfs.erofs -z
    /// ("lz4hc,12") reads them, or "none". Default: set by the profile
    #[arg(long, value_name = "COMPRESSION")]
    compression: Option<StoreCompression>,

    /// Size of the blocks that are compressed separately, 4K to 1M. Default: 128K for squashfs (nixpkgs has 1M), 64K for erofs
    #[arg(long, value_name = "SIZE", value_parser = block_size)]
    block_size: Option<u32>,

    /// Largest size of a store image, such as 1G. A larger store is packed as several images, which stage 1 stacks. Default: 2 GiB
    /// less one byte, the limit of every kernel; 4 GiB less one byte are possible with zero-copy.cpio
    #[arg(long, value_name = "SIZE", value_parser = image_size)]
    max_image: Option<u64>,

    /// Cache store images in this directory; later builds repack only what changed
    #[arg(long, value_name = "DIR")]
    layer_cache: Option<PathBuf>,

    /// With --layer-cache: maximum number of store images, 1 to 64. With 1 nothing is cached
    #[arg(long, value_name = "NUMBER", default_value_t = 8, requires = "layer_cache", value_parser = clap::value_parser!(u8).range(1..=MAX_IMAGES as i64))]
    layers: u8,
}

/// The contents of the ramdisk, except the store image.
#[derive(Args)]
pub struct RamdiskArguments {
    /// Kernel module that every boot loads, with its dependencies; may be given several times
    #[arg(long = "module", value_name = "NAME", value_parser = module)]
    modules: Vec<String>,

    /// Kernel module that stage 1 loads if the machine has a device for it; may be given several times
    #[arg(long = "available-module", value_name = "NAME", value_parser = module)]
    available_modules: Vec<String>,

    /// Build without modules of --module and --available-module that the kernel does not have, and name each in a warning
    #[arg(long)]
    allow_missing_modules: bool,

    /// The firn-init to pack. Default: the one that cargo built for musl, or the one beside this program
    #[arg(long, value_name = "FILE")]
    firn_init: Option<PathBuf>,

    /// Static busybox for a shell in the menu of a failed boot; the kernel parameter `boot.shell_on_fail` enables it
    #[arg(long, value_name = "FILE")]
    rescue_shell: Option<PathBuf>,

    /// Compressor of the ramdisk, except the store image. Default: zstd, or none with --profile dev
    #[arg(long, value_enum)]
    compressor: Option<Compressor>,

    /// Level of the compressor: 1 to 19 for zstd, 0 to 9 for xz, 1 to 9 for gzip; lz4 and none have no levels. Default: the
    /// highest, or a fast one with --profile dev
    #[arg(long, value_name = "LEVEL")]
    compressor_level: Option<u32>,

    /// Segment (a cpio archive, compressed or not) to put before that of firn, such as processor microcode; may be given several
    /// times
    #[arg(long = "prepend", value_name = "FILE")]
    before: Vec<PathBuf>,

    /// Segment to put after that of firn, whose files it may replace; may be given several times
    #[arg(long = "append", value_name = "FILE")]
    after: Vec<PathBuf>,

    /// When the Nix database of the booted system is made
    #[arg(long, value_enum, value_name = "WHEN", default_value_t)]
    database: DatabaseMode,

    /// Whether to make zero-copy.cpio, with which the store image stays in memory where the boot loader put it: firn's boot files load
    /// it, and the machine needs about half as much memory to boot
    #[arg(long, value_enum, value_name = "WHERE", default_value_t)]
    image_placement: Placement,

    /// At every boot, compare the whole store image with its SHA-256 before mounting it
    #[arg(long)]
    verify: bool,
}

impl StoreArguments {
    /// The options of a build with these arguments, and the defaults for the others.
    pub fn options(self, out: PathBuf) -> BuildOptions {
        let selection = StoreSelection {
            closure_info: self.closure_info,
            added: self.added,
            excluded: self.excluded,
            without_kernel: self.without_kernel,
        };
        BuildOptions { selection, ..BuildOptions::new(self.toplevel, out, PathBuf::new()) }
    }
}

impl PackingArguments {
    /// Sets these arguments in the options of a build.
    pub fn add_to(self, options: BuildOptions) -> BuildOptions {
        let packing = Packing {
            format: self.format,
            profile: self.profile,
            compression: self.compression,
            block_size: self.block_size,
            max_image: self.max_image.unwrap_or(Packing::default().max_image),
        };
        let layers = self.layer_cache.map(|directory| LayerCache { directory, max_images: self.layers.into() });
        let segments = SegmentOptions { profile: self.profile, ..options.segments };
        BuildOptions { packing, layers, segments, ..options }
    }
}

impl RamdiskArguments {
    /// Sets these arguments in the options of a build.
    pub fn add_to(self, options: BuildOptions) -> Result<BuildOptions> {
        Ok(BuildOptions {
            firn_init: self.firn_init.map_or_else(default_firn_init, Ok)?,
            modules: self.modules,
            available_modules: self.available_modules,
            allow_missing_modules: self.allow_missing_modules,
            rescue_shell: self.rescue_shell,
            segments: SegmentOptions {
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

/// Reads the name of a kernel module, or an alias of one.
fn module(text: &str) -> Result<String, String> {
    if text.trim().is_empty() {
        return Err("it takes the name of a kernel module, such as virtio_net".into());
    }
    Ok(text.into())
}

fn default_firn_init() -> Result<PathBuf> {
    let firn = env::current_exe().context("finding the path of this program; name firn-init with --firn-init")?;
    program::find_firn_init(&firn, env::consts::ARCH)
}

#[cfg(test)]
mod tests {
    use super::{block_size, image_size, module};

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
    fn c_12_a_module_has_a_name() {
        assert_eq!(module("virtio_net"), Ok("virtio_net".into()));
        assert!(module("").is_err() && module(" ").is_err());
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
