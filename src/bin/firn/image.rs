//! `firn image`: only the store image.

use crate::arguments::{PackingArguments, StoreArguments};
use crate::report::Report;
use anyhow::Result;
use clap::Args;
use firn::build;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Example:
  firn image ./result --out store.erofs --format erofs

Needs nix-store (Nix), and mksquashfs (squashfs-tools) or, with --format erofs, mkfs.erofs (erofs-utils).";

/// The arguments of `firn image`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Image {
    #[command(flatten)]
    store: StoreArguments,

    /// Output file, or a directory in which it is called nix-store.squashfs or nix-store.erofs
    #[arg(long, value_name = "FILE")]
    out: PathBuf,

    #[command(flatten)]
    packing: PackingArguments,

    #[command(flatten)]
    report: Report,
}

impl Image {
    /// Packs, and prints the output files.
    pub fn run(self) -> Result<()> {
        let progress = self.report.progress()?;
        let options = self.packing.add_to(self.store.options(self.out));
        let files = build::store_image(&options, progress)?;
        self.report.made("Store image", &options.out, &files)
    }
}
