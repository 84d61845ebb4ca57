//! `firn build`: everything that a machine needs to boot a system, in one directory.

use crate::arguments::{PackingArguments, RamdiskArguments, StoreArguments};
use crate::report::Report;
use anyhow::Result;
use clap::Args;
use firn::build;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  firn build ./result --out boot
  firn build ./result --out boot --profile dev --layer-cache ~/.cache/firn

Needs nix-store (Nix), and mksquashfs (squashfs-tools) or, with --format erofs, mkfs.erofs (erofs-utils). firn boot tries the result
under QEMU; firn ipxe, kexec, tarball and uki prepare it for a boot method.";

/// The arguments of `firn build`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Build {
    #[command(flatten)]
    store: StoreArguments,

    /// Output directory
    #[arg(long, value_name = "DIR")]
    out: PathBuf,

    /// Use this store image, made by firn image of the same system, instead of packing one; for several images, give it once for
    /// each, in the order of their numbers
    #[arg(
        long = "image",
        value_name = "FILE",
        conflicts_with_all = ["format", "compression", "block_size", "max_image", "layer_cache"]
    )]
    images: Vec<PathBuf>,

    #[command(flatten)]
    ramdisk: RamdiskArguments,

    #[command(flatten)]
    packing: PackingArguments,

    #[command(flatten)]
    report: Report,
}

impl Build {
    /// Builds, and prints the output files.
    pub fn run(self) -> Result<()> {
        let progress = self.report.progress()?;
        let options = self.packing.add_to(self.ramdisk.add_to(self.store.options(self.out))?);
        let options = build::options::BuildOptions { images: self.images, ..options };
        let manifest = build::build(&options, progress)?;
        self.report.made(&manifest.label, &options.out, &manifest.files)
    }
}
