//! `firn ramdisk`: only the ramdisk.

use crate::arguments::{RamdiskArguments, StoreArguments};
use crate::report::Report;
use anyhow::Result;
use clap::Args;
use firn::build;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Example:
  firn image ./result --out store.squashfs
  firn ramdisk ./result --image store.squashfs --out initrd

Give both commands the same --store-content, --exclude and --without-kernel. Needs nix-store (Nix).";

/// The arguments of `firn ramdisk`. The arguments for the store image have to be those of `firn image`: the Nix database in the
/// ramdisk follows from them.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Ramdisk {
    #[command(flatten)]
    store: StoreArguments,

    /// Store image, made by firn image; for several images, give it once for each, in the order of their numbers
    #[arg(long = "image", value_name = "FILE", required = true)]
    images: Vec<PathBuf>,

    /// Output file, or a directory in which it is called initrd
    #[arg(long, value_name = "FILE")]
    out: PathBuf,

    /// Leave out the store image: the boot loader has to add it, as a further ramdisk that contains it at its path
    #[arg(long)]
    split: bool,

    #[command(flatten)]
    contents: RamdiskArguments,

    #[command(flatten)]
    report: Report,
}

impl Ramdisk {
    /// Packs, and prints the output file.
    pub fn run(self) -> Result<()> {
        let progress = self.report.progress()?;
        let options = self.contents.add_to(self.store.options(self.out))?;
        let files = build::ramdisk(&options, &self.images, self.split, progress)?;
        self.report.made("Ramdisk", &options.out, &files)
    }
}
