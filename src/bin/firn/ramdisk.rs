//! `firn ramdisk`: the ramdisk alone.

use crate::report::Report;
use crate::words::{RamdiskWords, StoreWords};
use anyhow::Result;
use clap::Args;
use firn::build;
use std::path::PathBuf;

/// The words of `firn ramdisk`. What is in the store image has to be said as it was to `firn image`: the Nix database follows
/// from it.
#[derive(Args)]
pub struct Ramdisk {
    #[command(flatten)]
    store: StoreWords,

    /// The store image, which firn image made; if it made several, in the order of their numbers
    #[arg(long = "image", value_name = "FILE", required = true)]
    images: Vec<PathBuf>,

    /// What is made: a file, or a directory for one called initrd
    #[arg(long, value_name = "FILE")]
    out: PathBuf,

    /// Leave the store image out: the boot loader brings it, as another ramdisk with the image at its place
    #[arg(long)]
    split: bool,

    #[command(flatten)]
    parts: RamdiskWords,

    #[command(flatten)]
    report: Report,
}

impl Ramdisk {
    /// Packs, and says what there is then.
    pub fn run(self) -> Result<()> {
        let progress = self.report.progress()?;
        let options = self.parts.add_to(self.store.options(self.out))?;
        let files = build::ramdisk(&options, &self.images, self.split, progress)?;
        self.report.made("Ramdisk", &options.out, &files)
    }
}
