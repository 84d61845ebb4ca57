//! `firn build`: everything that a machine needs to boot a system, in one directory.

use crate::report::Report;
use crate::words::{PackingWords, RamdiskWords, StoreWords};
use anyhow::Result;
use clap::Args;
use firn::build;
use std::path::PathBuf;

/// The words of `firn build`.
#[derive(Args)]
pub struct Build {
    #[command(flatten)]
    store: StoreWords,

    /// Directory for what is made
    #[arg(long, value_name = "DIR")]
    out: PathBuf,

    /// A store image, which firn image made of this system, in place of packing one; if it made several, in the order of their
    /// numbers
    #[arg(
        long = "image",
        value_name = "FILE",
        conflicts_with_all = ["format", "compression", "block_size", "max_image", "layer_cache"]
    )]
    images: Vec<PathBuf>,

    #[command(flatten)]
    ramdisk: RamdiskWords,

    #[command(flatten)]
    packing: PackingWords,

    #[command(flatten)]
    report: Report,
}

impl Build {
    /// Builds, and says what there is then.
    pub fn run(self) -> Result<()> {
        let progress = self.report.progress()?;
        let options = self.packing.add_to(self.ramdisk.add_to(self.store.options(self.out))?);
        let options = build::Options { images: self.images, ..options };
        let manifest = build::build(&options, progress)?;
        self.report.made(&manifest.label, &options.out, &manifest.files)
    }
}
