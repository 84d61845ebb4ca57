//! `firn image`: the store image alone.

use crate::report::Report;
use crate::words::{PackingWords, StoreWords};
use anyhow::Result;
use clap::Args;
use firn::build;
use std::path::PathBuf;

/// The words of `firn image`.
#[derive(Args)]
pub struct Image {
    #[command(flatten)]
    store: StoreWords,

    /// What is made: a file, or a directory for one with its usual name
    #[arg(long, value_name = "FILE")]
    out: PathBuf,

    #[command(flatten)]
    packing: PackingWords,

    #[command(flatten)]
    report: Report,
}

impl Image {
    /// Packs, and says what there is then.
    pub fn run(self) -> Result<()> {
        let progress = self.report.progress()?;
        let options = self.packing.add_to(self.store.options(self.out));
        let files = build::store_image(&options, progress)?;
        self.report.made("Store image", &options.out, &files)
    }
}
